//! The tool as its users meet it: the built program, its output, its exit status, its error lines.

mod backups;
mod dumping;
mod importing;
mod program;
mod reading;
mod refusals;
mod salvaging;
mod watching;
mod writing;
