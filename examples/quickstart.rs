//! Two versions of one key: both can be read.

use revtree::Db;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let db = Db::open(folder.path().join("config.rvt"))?;

    let first = db.put("color", "red")?;
    let second = db.put("color", "blue")?;

    for revision in [first, second] {
        let view = db.read_at(revision)?;
        let record = view.get("color")?.expect("it was put");
        println!("at {revision}: {}", std::str::from_utf8(record.value())?);
    }
    db.close()?;
    Ok(())
}
