//! Writes the archive format the kernel unpacks at boot (cpio "newc", linux/Documentation/driver-api/early-userspace/
//! buffer-format.rst): per entry a header of hexadecimal fields, the name, the contents, each padded to four bytes.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive being written; [`Archive::finish`] ends it.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    out: W,
    written: usize,
    inode: u32,
    /// Every path written so far: each is written once, directories as they are needed.
    known: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            inode: 0,
            known: BTreeSet::new(),
        }
    }

    /// Adds a directory and those above it.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.filter(|&end| end > 0) {
            if self.known.insert(path[..end].to_owned()) {
                self.entry(&path[..end], DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file with these permissions; a path that is there already is left alone.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> io::Result<()> {
        self.leaf(path, FILE | permissions, (0, 0), contents)
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.leaf(path, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// Writes the end mark and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn leaf(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        if !self.known.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
            self.directory(parent)?;
        }
        self.entry(path, mode, device, contents)
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), contents: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(contents.len()).map_err(|_| io::Error::other(format!("{name} is too large")))?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // inode, mode, owner, group, links, time, size, device twice, length of the name, no checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        self.write(format!("070701{header}{name}\0").as_bytes())?;
        self.pad()?;
        self.write(contents)?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.write(&[0; 4][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_header_name_and_contents_each_padded() {
        let mut archive = Archive::new(Vec::new());
        archive.file("init", 0o755, b"hello").expect("memory takes it");
        let bytes = archive.finish().expect("memory takes it");
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[54..62], b"00000005");
        // 110 bytes of header and "init\0" make 115, padded to 116.
        assert_eq!(&bytes[110..124], b"init\0\0hello\0\0\0");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/c", 0o644, b"").expect("memory takes it");
        archive.file("/a/b/d", 0o644, b"").expect("memory takes it");
        let bytes = archive.finish().expect("memory takes it");
        let text = String::from_utf8_lossy(&bytes);
        let (a, b, c) = (text.find("a\0"), text.find("a/b\0"), text.find("a/b/c\0"));
        assert!(a < b && b < c);
        assert_eq!(text.matches("a/b\0").count(), 1);
    }
}
