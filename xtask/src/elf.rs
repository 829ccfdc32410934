//! Just enough of ELF (64 bit, little endian, relocatable) to look into a BPF object (`ebpf::object`) or a kernel module (`vm::modules`).
//!
//! Layout: the ELF header points to an array of section headers; names are offsets into string sections.

use anyhow::{Context, Result, bail};

const EXECUTABLE: u64 = 0x4;
const SYMBOL_TABLE: u32 = 2;
const RELOCATIONS: u32 = 9;

/// One section and its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) executable: bool,
    kind: u32,
    link: usize,
    info: usize,
}

/// One symbol: its name and the section it is defined in (0: undefined).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    pub(crate) name: &'a str,
    pub(crate) section: usize,
    /// Whether it is a function.
    pub(crate) function: bool,
}

/// A parsed object.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    pub(crate) sections: Vec<Section<'a>>,
}

impl<'a> Elf<'a> {
    /// Reads the section headers.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        if bytes.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1]) {
            bail!("not a 64-bit little-endian ELF file");
        }
        let table = usize::try_from(u64_at(bytes, 0x28)?)?;
        let count = usize::from(u16_at(bytes, 0x3c)?);
        let names_index = usize::from(u16_at(bytes, 0x3e)?);
        let header = |index: usize| table + index * 64;
        let (names_offset, names_size) = extent(bytes, header(names_index))?;
        let names = slice(bytes, names_offset, names_size)?;
        let mut sections = Vec::with_capacity(count);
        for at in (0..count).map(header) {
            let kind = u32_at(bytes, at + 4)?;
            let (offset, size) = extent(bytes, at)?;
            // NOBITS sections occupy no bytes of the file.
            let data = if kind == 8 {
                &[][..]
            } else {
                slice(bytes, offset, size)?
            };
            sections.push(Section {
                name: text_at(names, usize::try_from(u32_at(bytes, at)?)?)?,
                data,
                executable: u64_at(bytes, at + 8)? & EXECUTABLE != 0,
                kind,
                link: usize::try_from(u32_at(bytes, at + 40)?)?,
                info: usize::try_from(u32_at(bytes, at + 44)?)?,
            });
        }
        Ok(Self { sections })
    }

    /// The section of that name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// All symbols, in the order of the table (relocations refer to them by index).
    pub(crate) fn symbols(&self) -> Result<Vec<Symbol<'a>>> {
        let Some(table) = self.sections.iter().find(|section| section.kind == SYMBOL_TABLE) else {
            return Ok(Vec::new());
        };
        let names = self
            .sections
            .get(table.link)
            .context("the symbol table names no string table")?
            .data;
        table
            .data
            .chunks_exact(24)
            .map(|entry| {
                Ok(Symbol {
                    name: text_at(names, usize::try_from(u32_at(entry, 0)?)?)?,
                    section: usize::from(u16_at(entry, 6)?),
                    function: entry[4] & 0xf == 2,
                })
            })
            .collect()
    }

    /// For each relocation of executable sections: the section's name and the index of the symbol it refers to.
    pub(crate) fn code_relocations(&self) -> Result<Vec<(&'a str, usize)>> {
        let mut all = Vec::new();
        for table in self.sections.iter().filter(|section| section.kind == RELOCATIONS) {
            let Some(patched) = self.sections.get(table.info).filter(|section| section.executable) else {
                continue;
            };
            for entry in table.data.chunks_exact(16) {
                all.push((patched.name, usize::try_from(u64_at(entry, 8)? >> 32)?));
            }
        }
        Ok(all)
    }
}

fn extent(bytes: &[u8], header: usize) -> Result<(usize, usize)> {
    Ok((
        usize::try_from(u64_at(bytes, header + 24)?)?,
        usize::try_from(u64_at(bytes, header + 32)?)?,
    ))
}

fn slice(bytes: &[u8], offset: usize, size: usize) -> Result<&[u8]> {
    let end = offset.checked_add(size).context("a section's size overflows")?;
    bytes.get(offset..end).context("a section lies outside the file")
}

fn text_at(strings: &[u8], offset: usize) -> Result<&str> {
    let rest = strings.get(offset..).context("a name lies outside its string table")?;
    let end = rest.iter().position(|&byte| byte == 0).context("a name does not end")?;
    Ok(std::str::from_utf8(&rest[..end])?)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    let found = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    found.copied().context("the file is cut short")
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array_at(bytes, offset)?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array_at(bytes, offset)?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array_at(bytes, offset)?))
}
