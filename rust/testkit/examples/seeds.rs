//! Writes the seeds of every reader into a folder, one folder each: what `make fuzz` begins with.

use std::path::PathBuf;

use gradient_testkit::readers::READERS;

fn main() -> std::io::Result<()> {
    let root = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/fuzz/corpus".to_owned()));
    for reader in READERS {
        let folder = root.join(reader.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (reader.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:04}")), seed)?;
        }
    }
    Ok(())
}
