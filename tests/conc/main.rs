//! Many threads, many tasks, several processes on one store.
//!
//! `checkpoints` kills while commits go on beside one, `counted` stops the engine inside its calls and counts them, `expiring` reads views that end, `history` records what threads saw and
//! compares it with a replay, `long_view` holds a view for very long, `media` fills, limits and cuts real files, `overlaps` puts two activities at one moment, `processes` kills writers and reads beside them, `reclaim` frees and uses again what others have just read, `tasks` awaits commits, `watching` holds what the campaign of watchers has found.

mod checkpoints;
mod counted;
mod expiring;
mod gate;
mod history;
mod hooks;
mod long_view;
mod media;
mod overlaps;
mod processes;
mod reclaim;
mod tasks;
mod watching;
