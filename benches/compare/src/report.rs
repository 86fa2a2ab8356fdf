//! From samples to medians, one table with ratios, and JSON lines. Knows no engine but revtree.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Result;
use crate::measure::median;
use crate::workloads::WORKLOADS;

const OURS: &str = "revtree";
const RAW: &str = "raw";

/// One measured figure.
pub(crate) struct Sample {
    pub(crate) engine: String,
    pub(crate) workload: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
}

impl Sample {
    /// One line, as a worker process prints it.
    pub(crate) fn to_line(&self) -> String {
        let Sample {
            engine,
            workload,
            metric,
            unit,
            value,
        } = self;
        format!("{engine}\t{workload}\t{metric}\t{unit}\t{value}")
    }

    pub(crate) fn from_line(line: &str) -> Result<Sample> {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut field = || fields.next().ok_or_else(|| format!("not a sample: {line}"));
        Ok(Sample {
            engine: field()?,
            workload: field()?,
            metric: field()?,
            unit: field()?,
            value: field()?.parse()?,
        })
    }
}

/// A row of the table: one metric, the median of each engine.
struct Row {
    workload: String,
    metric: String,
    unit: String,
    medians: BTreeMap<String, f64>,
}

/// All medians of a run.
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// Which of two figures is the better one.
#[derive(PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
    Neither,
}

fn better(unit: &str) -> Better {
    match unit {
        "ops" | "revs" => Better::Neither,
        "ratio" => Better::Higher,
        _ if unit.ends_with("/s") => Better::Higher,
        _ => Better::Lower,
    }
}

impl Report {
    pub(crate) fn of(samples: &[Sample]) -> Report {
        let mut rows: Vec<Row> = Vec::new();
        let mut values: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
        for sample in samples {
            let is_its = |row: &Row| row.workload == sample.workload && row.metric == sample.metric;
            let row = rows.iter().position(is_its).unwrap_or_else(|| {
                rows.push(Row {
                    workload: sample.workload.clone(),
                    metric: sample.metric.clone(),
                    unit: sample.unit.clone(),
                    medians: BTreeMap::new(),
                });
                rows.len() - 1
            });
            values
                .entry((row, &sample.engine))
                .or_default()
                .push(sample.value);
        }
        for ((row, engine), values) in values {
            rows[row].medians.insert(engine.to_owned(), median(values));
        }
        let place = |row: &Row| WORKLOADS.iter().position(|&name| name == row.workload);
        rows.sort_by_key(place);
        Report { rows }
    }

    /// The table; a ratio above 1 says that revtree is the better one, whatever the unit.
    pub(crate) fn table(&self, engines: &[String]) -> String {
        let has_ours = engines.iter().any(|engine| engine == OURS);
        let peers: Vec<&String> = engines.iter().filter(|&e| e != OURS && e != RAW).collect();
        let mut header: Vec<String> = ["", "metric", "unit"].map(str::to_owned).into();
        header.extend(engines.iter().cloned());
        if has_ours {
            header.extend(peers.iter().map(|peer| format!("/ {peer}")));
            header.push("/ best".to_owned());
        }
        header.push("best peer".to_owned());
        let mut lines = vec![header];
        lines.extend(
            self.rows
                .iter()
                .map(|row| row.cells(engines, &peers, has_ours)),
        );
        align(&lines)
    }

    /// One line for each median.
    pub(crate) fn json_lines(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let Row {
                workload,
                metric,
                unit,
                ..
            } = row;
            for (engine, value) in &row.medians {
                // Names and units are this program's own and need no escapes.
                let _ = writeln!(
                    text,
                    "{{\"engine\":\"{engine}\",\"workload\":\"{workload}\",\
                     \"metric\":\"{metric}\",\"value\":{value},\"unit\":\"{unit}\"}}"
                );
            }
        }
        text
    }
}

impl Row {
    fn cells(&self, engines: &[String], peers: &[&String], has_ours: bool) -> Vec<String> {
        let mut cells = vec![
            self.workload.clone(),
            self.metric.clone(),
            self.unit.clone(),
        ];
        let cell = |value: Option<f64>| value.map_or("-".to_owned(), short);
        cells.extend(
            engines
                .iter()
                .map(|engine| cell(self.medians.get(engine).copied())),
        );
        let best = self.best(peers);
        if has_ours {
            let ratio = |peer: &String| cell(self.ratio(peer));
            cells.extend(peers.iter().map(|&peer| ratio(peer)));
            cells.push(best.map_or("-".to_owned(), ratio));
        }
        cells.push(best.map_or("-".to_owned(), String::clone));
        cells
    }

    fn best<'p>(&self, peers: &[&'p String]) -> Option<&'p String> {
        let of = |peer: &&String| self.medians.get(*peer).copied();
        let known = peers.iter().filter_map(|peer| Some((*peer, of(peer)?)));
        let order = |a: &(&String, f64), b: &(&String, f64)| a.1.total_cmp(&b.1);
        match better(&self.unit) {
            Better::Higher => known.max_by(order),
            Better::Lower => known.min_by(order),
            Better::Neither => None,
        }
        .map(|(peer, _)| peer)
    }

    fn ratio(&self, peer: &String) -> Option<f64> {
        let (ours, theirs) = (*self.medians.get(OURS)?, *self.medians.get(peer)?);
        let ratio = match better(&self.unit) {
            Better::Higher => ours / theirs,
            Better::Lower => theirs / ours,
            Better::Neither => return None,
        };
        ratio.is_finite().then_some(ratio)
    }
}

/// Three significant digits, with k and M.
fn short(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 9_995.0 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}{suffix}"),
        size if size >= 9.995 => format!("{value:.1}{suffix}"),
        size if size >= 0.095 || size == 0.0 => format!("{value:.2}{suffix}"),
        _ => format!("{value:.4}{suffix}"),
    }
}

/// Columns as wide as their widest cell; names to the left, figures to the right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut out = String::new();
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = if column < 3 {
                write!(out, "{cell:<width$}  ")
            } else {
                write!(out, "{cell:>width$}  ")
            };
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(engine: &str, metric: &str, unit: &str, value: f64) -> Sample {
        let (engine, metric) = (engine.to_owned(), metric.to_owned());
        Sample {
            engine,
            workload: "B".to_owned(),
            metric,
            unit: unit.to_owned(),
            value,
        }
    }

    #[test]
    fn ratios_above_one_say_that_revtree_is_better() {
        let samples = [
            sample("revtree", "gets_1t", "ops/s", 800.0),
            sample("lmdb", "gets_1t", "ops/s", 200.0),
            sample("redb", "gets_1t", "ops/s", 100.0),
            sample("revtree", "p99_1t", "us", 2.0),
            sample("lmdb", "p99_1t", "us", 6.0),
            sample("redb", "p99_1t", "us", 5.0),
        ];
        let report = Report::of(&samples);
        let (lmdb, redb) = ("lmdb".to_owned(), "redb".to_owned());
        let ratios = |peer: &String| {
            report
                .rows
                .iter()
                .map(|row| row.ratio(peer))
                .collect::<Vec<_>>()
        };
        assert_eq!(ratios(&lmdb), [Some(4.0), Some(3.0)]);
        assert_eq!(ratios(&redb), [Some(8.0), Some(2.5)]);
        let best: Vec<_> = report
            .rows
            .iter()
            .map(|row| row.best(&[&lmdb, &redb]))
            .collect();
        assert_eq!(best, [Some(&lmdb), Some(&redb)]);
    }

    #[test]
    fn samples_survive_their_line() {
        let line = sample("raw", "p99", "us", 0.1 + 0.2).to_line();
        assert_eq!(Sample::from_line(&line).unwrap().to_line(), line);
        assert!(Sample::from_line("raw\tB").is_err());
    }

    #[test]
    fn json_has_one_line_for_each_median() {
        let samples = [
            sample("lmdb", "gets_1t", "ops/s", 1.5),
            sample("lmdb", "gets_1t", "ops/s", 2.5),
        ];
        let json = Report::of(&samples).json_lines();
        let expected = "{\"engine\":\"lmdb\",\"workload\":\"B\",\"metric\":\"gets_1t\",\
                        \"value\":2,\"unit\":\"ops/s\"}\n";
        assert_eq!(json, expected);
    }
}
