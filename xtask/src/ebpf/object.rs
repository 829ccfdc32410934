//! What a BPF object must be before anyone loads it: programs, a licence, types, no panics, and atomics that return
//! what they fetched. Called by `build-ebpf` on every build; the verifier has the last word, at load time.

use anyhow::{Result, bail, ensure};
use std::fmt;

use crate::elf::Elf;

/// BPF_STX | BPF_ATOMIC, for 64 and for 32 bits.
const ATOMIC: [u8; 2] = [0xdb, 0xc3];
/// BPF_ADD | BPF_FETCH in the immediate of an atomic instruction.
const FETCH_ADD: u32 = 0x01;
/// The one instruction of two slots: load a 64-bit immediate.
const LOAD_IMMEDIATE_64: u8 = 0x18;

/// The kinds of program the data path consists of, by the section that tells the loader what they are.
const EXPECTED: &[&str] = &[
    "xdp",
    "classifier",
    "cgroup/connect4",
    "cgroup/connect6",
    "cgroup/sendmsg4",
    "cgroup/sendmsg6",
    "cgroup/recvmsg4",
    "cgroup/recvmsg6",
    "cgroup/getpeername4",
    "cgroup/getpeername6",
    "cgroup/sock_release",
    "sockops",
    "iter/bpf_sk_storage_map",
];

/// What was found in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Sections with programs, in the order of the file.
    pub(crate) programs: Vec<String>,
    /// Instruction slots in all executable sections.
    pub(crate) instructions: usize,
    /// Atomic additions whose old value is used.
    pub(crate) fetching_adds: usize,
}

impl fmt::Display for Facts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            programs,
            instructions,
            fetching_adds,
        } = self;
        write!(
            out,
            "{instructions} instructions, {fetching_adds} fetching atomics, sections {}",
            programs.join(" ")
        )
    }
}

/// Checks an object; `fetching` says that its source uses the result of an atomic addition.
///
/// # Errors
/// Names what is missing, or which function can panic.
pub(crate) fn check(bytes: &[u8], fetching: bool) -> Result<Facts> {
    let elf = Elf::parse(bytes)?;
    check_licence(&elf)?;
    for name in [".BTF", ".BTF.ext"] {
        ensure!(
            elf.section(name).is_some(),
            "section {name} is missing: was bpf-linker called without --btf?"
        );
    }
    check_panics(&elf)?;
    let code = || {
        elf.sections
            .iter()
            .filter(|section| section.executable && !section.data.is_empty())
    };
    let programs: Vec<String> = code()
        .map(|section| section.name.to_owned())
        .filter(|name| name != ".text")
        .collect();
    let missing: Vec<&str> = EXPECTED
        .iter()
        .copied()
        .filter(|expected| !programs.iter().any(|name| name == expected))
        .collect();
    ensure!(missing.is_empty(), "programs are missing: {}", missing.join(" "));
    let facts = Facts {
        programs,
        instructions: code().map(|section| section.data.len() / 8).sum(),
        fetching_adds: code().map(|section| fetching_adds(section.data)).sum(),
    };
    ensure!(
        !fetching || facts.fetching_adds > 0,
        "the sources use atomic_xadd, but no instruction fetches: its result must be used, and its order be SeqCst"
    );
    Ok(facts)
}

/// The kernel refuses helpers marked GPL-only to a program under another licence.
fn check_licence(elf: &Elf<'_>) -> Result<()> {
    let Some(licence) = elf.section("license") else {
        bail!("section license is missing");
    };
    ensure!(
        licence.data == b"Dual MIT/GPL\0",
        "the licence is {:?}, not \"Dual MIT/GPL\"",
        String::from_utf8_lossy(licence.data)
    );
    Ok(())
}

/// A reachable panic does not load: the verifier sees an endless loop or a program without an exit.
fn check_panics(elf: &Elf<'_>) -> Result<()> {
    let symbols = elf.symbols()?;
    let panics = |name: &str| name.contains("panic") || name.contains("rust_begin_unwind");
    let own = symbols
        .iter()
        .find(|symbol| panics(symbol.name) && (symbol.function || symbol.section == 0));
    if let Some(symbol) = own {
        bail!(
            "it contains {}: an index, a division or an unwrap can panic",
            symbol.name
        );
    }
    for (section, index) in elf.code_relocations()? {
        if let Some(symbol) = symbols.get(index).filter(|symbol| panics(symbol.name)) {
            bail!(
                "section {section} calls {}: an index, a division or an unwrap in it can panic",
                symbol.name
            );
        }
    }
    Ok(())
}

fn fetching_adds(code: &[u8]) -> usize {
    let mut slots = code.chunks_exact(8);
    let mut count = 0;
    while let Some(slot) = slots.next() {
        let immediate = u32::from_le_bytes([slot[4], slot[5], slot[6], slot[7]]);
        match slot[0] {
            LOAD_IMMEDIATE_64 => drop(slots.next()),
            opcode if ATOMIC.contains(&opcode) && immediate == FETCH_ADD => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(opcode: u8, immediate: u32) -> Vec<u8> {
        let mut bytes = vec![opcode, 0x10, 0, 0];
        bytes.extend(immediate.to_le_bytes());
        bytes
    }

    #[test]
    fn only_additions_that_fetch_are_counted() {
        let plain_add = slot(0xdb, 0x00);
        let exchange = slot(0xdb, 0xe1);
        let code = [slot(0xdb, 0x01), plain_add, slot(0xc3, 0x01), exchange].concat();
        assert_eq!(fetching_adds(&code), 2);
    }

    #[test]
    fn the_second_half_of_a_wide_load_is_not_an_instruction() {
        let code = [slot(0x18, 7), slot(0xdb, 0x01), slot(0x95, 0)].concat();
        assert_eq!(fetching_adds(&code), 0);
    }

    #[test]
    fn what_is_not_elf_is_refused() {
        let error = check(b"#!/bin/sh\n", false).expect_err("must be refused");
        assert!(error.to_string().contains("not a 64-bit little-endian ELF"), "{error}");
    }
}
