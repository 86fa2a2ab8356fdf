//! The commands, each in a file of its own: what it takes, and what it does.

mod apply;
mod backup;
mod check;
mod compact;
mod delete;
mod dump;
mod get;
mod hash;
mod history;
mod import_etcd;
mod log;
mod put;
mod range;
mod reclaim;
mod salvage;
mod stat;
mod tables;
mod watch;

use clap::Subcommand;

use crate::failure::Result;
use crate::keys::KeyFormat;
use crate::output::Output;

/// What the tool can do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a store from a snapshot of etcd, or from a copy of its database.
    ImportEtcd(import_etcd::ImportEtcd),
    /// Print the value of a key.
    Get(get::Get),
    /// Print the keys of a range with their values.
    Range(range::Range),
    /// Print every retained change of a key, the newest last.
    History(history::History),
    /// Print the changes of all keys in order of revisions.
    Log(log::Log),
    /// Print changes as they are made, by other processes too, until it is ended.
    ///
    /// Lines are those of `log`. The store is opened to read when it has changed, and closed before anything is
    /// printed. An open reads the log that its writer's last checkpoint has not saved, which may take seconds: what
    /// is new is printed behind two of them then, and at most half of the time goes into opens. When a compaction has passed what would be printed next, it ends with status 1 and says where
    /// one can go on.
    Watch(watch::Watch),
    /// Print the hash of all keys at a revision, equal to etcd's HashKV.
    Hash(hash::Hash),
    /// Print revisions, counts and sizes.
    Stat(stat::Stat),
    /// Verify every byte in use.
    Check(check::Check),
    /// Put a key; makes the store when there is none.
    Put(put::Put),
    /// Delete a key or a range.
    Delete(delete::Delete),
    /// Give up the history below a revision.
    Compact(compact::Compact),
    /// Write all of a store into a new file, or what an earlier backup lacks.
    Backup(backup::Backup),
    /// Add increments to a backup: all of one or nothing.
    Apply(apply::Apply),
    /// Give back the space that nothing needs any more.
    Reclaim(reclaim::Reclaim),
    /// Print the side tables, or the rows of one.
    Tables(tables::Tables),
    /// Print the structures of the file, also of a damaged one.
    Dump(dump::Dump),
    /// Save what is whole of a damaged store into a new one.
    Salvage(salvage::Salvage),
}

impl Command {
    /// Does it.
    pub(crate) fn run(&self, keys: KeyFormat, output: &mut Output) -> Result {
        match self {
            Command::ImportEtcd(command) => command.run(output),
            Command::Get(command) => command.run(keys, output),
            Command::Range(command) => command.run(keys, output),
            Command::History(command) => command.run(keys, output),
            Command::Log(command) => command.run(output),
            Command::Watch(command) => command.run(keys, output),
            Command::Hash(command) => command.run(output),
            Command::Stat(command) => command.run(output),
            Command::Check(command) => command.run(output),
            Command::Put(command) => command.run(keys, output),
            Command::Delete(command) => command.run(keys, output),
            Command::Compact(command) => command.run(output),
            Command::Backup(command) => command.run(output),
            Command::Apply(command) => command.run(output),
            Command::Reclaim(command) => command.run(output),
            Command::Tables(command) => command.run(output),
            Command::Dump(command) => command.run(output),
            Command::Salvage(command) => command.run(output),
        }
    }
}
