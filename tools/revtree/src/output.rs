//! What the tool prints, in text and in JSON, in one place: both forms of a thing stand together.
//!
//! Text is for people: keys and values as they are when they are text, escaped otherwise, with tabs
//! between fields. JSON has etcd's field names, base64 bytes and plain numbers, an object on each line.

use std::fmt::{Arguments, Display};
use std::io::{self, BufWriter, Stdout, Write};
use std::time::{Duration, Instant};

use revtree::{Error, Event, EventKind, KeyValue, Record, Revision};
use revtree_dump::{base64, readable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Where results go.
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
    damage: bool,
}

/// A key with its value or without.
pub(crate) struct Shown<'a> {
    key: &'a [u8],
    value: &'a [u8],
    create: u64,
    modified: u64,
    version: u64,
    lease: i64,
}

impl<'a> From<&'a Record<'_>> for Shown<'a> {
    fn from(record: &'a Record<'_>) -> Shown<'a> {
        Shown {
            key: record.key(),
            value: record.value(),
            create: record.create_revision().get(),
            modified: record.mod_revision().get(),
            version: record.version(),
            lease: record.lease().0,
        }
    }
}

impl<'a> From<&'a KeyValue> for Shown<'a> {
    fn from(kv: &'a KeyValue) -> Shown<'a> {
        Shown {
            key: &kv.key,
            value: &kv.value,
            create: kv.create_revision.get(),
            modified: kv.mod_revision.get(),
            version: kv.version,
            lease: kv.lease.0,
        }
    }
}

impl Shown<'_> {
    /// The fields of the object, without its braces.
    fn fields(&self) -> String {
        let Shown {
            key,
            value,
            create,
            modified,
            version,
            lease,
        } = self;
        format!(
            "\"key\":\"{}\",\"value\":\"{}\",\"create_revision\":{create},\
             \"mod_revision\":{modified},\"version\":{version},\"lease\":{lease}",
            base64(key),
            base64(value)
        )
    }
}

impl Output {
    /// Prints to stdout.
    pub(crate) fn new(json: bool) -> Output {
        Output {
            json,
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
            damage: false,
        }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether damage was told on the way: the status is then 1.
    pub(crate) fn told_damage(&self) -> bool {
        self.damage
    }

    /// Tells of damage behind which the command goes on.
    pub(crate) fn damage(&mut self, error: &Error) {
        self.damage = true;
        reason(error);
    }

    /// Writes out what is buffered.
    pub(crate) fn finish(&mut self) -> Result {
        self.out.flush().map_err(Failure::Output)
    }

    /// Waits for so long, or until nobody can read what is printed any more, which fails.
    pub(crate) fn wait(&self, time: Duration) -> Result {
        let (mut left, began) = (time, Instant::now());
        loop {
            // Only what nobody asks for is told: an error, or that the other end is gone.
            let mut stdout = [PollFd::new(self.out.get_ref(), PollFlags::empty())];
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut stdout, timeout.as_ref()) {
                Ok(0) => return Ok(()),
                Ok(_)
                    if stdout[0]
                        .revents()
                        .intersects(PollFlags::ERR | PollFlags::HUP) =>
                {
                    return Err(Failure::Output(io::ErrorKind::BrokenPipe.into()));
                }
                // Stdout that was never open takes everything.
                Ok(_) => {
                    std::thread::sleep(left);
                    return Ok(());
                }
                Err(Errno::INTR) => left = time.saturating_sub(began.elapsed()),
                Err(error) => return Err(Failure::Output(error.into())),
            }
        }
    }

    fn print(&mut self, text: Arguments<'_>) -> Result {
        self.out.write_fmt(text).map_err(Failure::Output)
    }

    /// A line, the same in both forms: what it says knows its form.
    pub(crate) fn line(&mut self, text: Arguments<'_>) -> Result {
        self.print(format_args!("{text}\n"))
    }

    /// The answer to `get`: in text the value alone, with its line breaks when it is text.
    pub(crate) fn value(&mut self, found: &Shown<'_>) -> Result {
        if self.json {
            return self.line(format_args!("{{{}}}", found.fields()));
        }
        let is_text = |text: &&str| {
            text.chars()
                .all(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'))
        };
        match std::str::from_utf8(found.value).ok().filter(is_text) {
            Some(text) => self.line(format_args!("{text}")),
            None => self.line(format_args!("{}", readable(found.value))),
        }
    }

    /// A line of `range`.
    pub(crate) fn key_value(&mut self, found: &Shown<'_>, keys_only: bool) -> Result {
        if self.json {
            return self.line(format_args!("{{{}}}", found.fields()));
        }
        let key = readable(found.key);
        if keys_only {
            return self.line(format_args!("{key}"));
        }
        self.line(format_args!("{key}\t{}", readable(found.value)))
    }

    /// A line of `history`.
    pub(crate) fn version(&mut self, event: &Event) -> Result {
        let (kind, shown) = (kind(event), Shown::from(&event.kv));
        if self.json {
            return self.line(format_args!("{{\"type\":\"{kind}\",{}}}", shown.fields()));
        }
        match event.kind {
            EventKind::Put => {
                let value = readable(shown.value);
                self.line(format_args!("{}\t{kind}\t{value}", shown.modified))
            }
            EventKind::Delete => self.line(format_args!("{}\t{kind}", shown.modified)),
        }
    }

    /// Events in order, and records that cannot be read.
    pub(crate) fn events(
        &mut self,
        events: impl IntoIterator<Item = revtree::Result<Event>>,
    ) -> Result {
        let mut last = None;
        for event in events {
            match event {
                Ok(event) => {
                    self.event(&event, last)?;
                    last = Some(event.id.main);
                }
                Err(error) => self.damage(&error),
            }
        }
        self.events_end(last)
    }

    /// An event of them. JSON has one line for a revision, so `before` is the revision of the event
    /// before it; [`Output::events_end`] ends the last line.
    fn event(&mut self, event: &Event, before: Option<Revision>) -> Result {
        let (kind, shown, rev) = (kind(event), Shown::from(&event.kv), event.id.main);
        if self.json {
            if before != Some(rev) {
                self.events_end(before)?;
                self.print(format_args!("{{\"revision\":{rev},\"events\":["))?;
            } else {
                self.print(format_args!(","))?;
            }
            return self.print(format_args!(
                "{{\"type\":\"{kind}\",\"kv\":{{{}}}}}",
                shown.fields()
            ));
        }
        let key = readable(shown.key);
        match event.kind {
            EventKind::Put => self.line(format_args!(
                "{rev}\t{kind}\t{key}\t{}",
                readable(shown.value)
            )),
            EventKind::Delete => self.line(format_args!("{rev}\t{kind}\t{key}")),
        }
    }

    /// Ends the line of the revision `last`.
    fn events_end(&mut self, last: Option<Revision>) -> Result {
        if self.json && last.is_some() {
            return self.line(format_args!("]}}"));
        }
        Ok(())
    }

    /// Named numbers: one object, or a line each.
    pub(crate) fn numbers(&mut self, fields: &[(&str, Value)]) -> Result {
        if self.json {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            return self.line(format_args!("{{{}}}", fields.join(",")));
        }
        for (name, value) in fields {
            let name = name.replace('_', " ");
            match value {
                Value::String(text) => self.line(format_args!("{name}: {text}"))?,
                other => self.line(format_args!("{name}: {other}"))?,
            }
        }
        Ok(())
    }

    /// A row of a side table.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Result {
        if self.json {
            let (key, value) = (base64(key), base64(value));
            return self.line(format_args!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}"));
        }
        self.line(format_args!("{}\t{}", readable(key), readable(value)))
    }
}

/// A reason on stderr, in one line. Nobody may be left to read it.
pub(crate) fn reason(text: &impl Display) {
    let _ = writeln!(io::stderr(), "revtree: {text}");
}

fn kind(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
    }
}

/// The compact revision as etcd's JSON has it: −1 when there was none.
pub(crate) fn compact_number(compact: Option<Revision>) -> Value {
    compact.map_or(Value::from(-1), |rev| rev.get().into())
}
