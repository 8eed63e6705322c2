//! Which architectures this machine runs, its own and those that an emulator runs for it.
//!
//! The kernel knows emulators by patterns of the first bytes of programs (`binfmt_misc`), in a file system
//! that need not be mounted. So what runs is found by trying: a program that does nothing but end.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// Where the programs are loaded: a multiple of every page size.
const BASE: u32 = 0x40_0000;

/// How the programs of an architecture look, and one that ends with success.
struct Architecture {
    /// Name, as Go and images have it.
    name: &'static str,
    bits: Bits,
    order: Order,
    /// `e_machine`
    machine: u16,
    /// `e_flags`
    flags: u32,
    /// Machine code: `exit(0)`.
    code: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bits {
    Few,
    Many,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    LittleFirst,
    BigFirst,
}

use Bits::{Few, Many};
use Order::{BigFirst, LittleFirst};

const ARCHITECTURES: [Architecture; 9] = [
    Architecture {
        name: "amd64",
        bits: Many,
        order: LittleFirst,
        machine: 62,
        flags: 0,
        // xor edi, edi; mov eax, 60; syscall
        code: b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05",
    },
    Architecture {
        name: "386",
        bits: Few,
        order: LittleFirst,
        machine: 3,
        flags: 0,
        // xor ebx, ebx; mov eax, 1; int 0x80
        code: b"\x31\xdb\xb8\x01\x00\x00\x00\xcd\x80",
    },
    Architecture {
        name: "arm64",
        bits: Many,
        order: LittleFirst,
        machine: 183,
        flags: 0,
        // mov x0, #0; mov x8, #93; svc #0
        code: b"\x00\x00\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4",
    },
    Architecture {
        name: "arm",
        bits: Few,
        order: LittleFirst,
        machine: 40,
        flags: 0x0500_0000,
        // mov r0, #0; mov r7, #1; svc #0
        code: b"\x00\x00\xa0\xe3\x01\x70\xa0\xe3\x00\x00\x00\xef",
    },
    Architecture {
        name: "riscv64",
        bits: Many,
        order: LittleFirst,
        machine: 243,
        flags: 0,
        // li a0, 0; li a7, 93; ecall
        code: b"\x13\x05\x00\x00\x93\x08\xd0\x05\x73\x00\x00\x00",
    },
    Architecture {
        name: "ppc64le",
        bits: Many,
        order: LittleFirst,
        machine: 21,
        flags: 2,
        // li r3, 0; li r0, 1; sc
        code: b"\x00\x00\x60\x38\x01\x00\x00\x38\x02\x00\x00\x44",
    },
    Architecture {
        name: "s390x",
        bits: Many,
        order: BigFirst,
        machine: 22,
        flags: 0,
        // lghi %r2, 0; svc 1
        code: b"\xa7\x29\x00\x00\x0a\x01",
    },
    Architecture {
        name: "mips64le",
        bits: Many,
        order: LittleFirst,
        machine: 8,
        flags: 0x8000_0007,
        // li a0, 0; li v0, 5058; syscall
        code: b"\x00\x00\x04\x24\xc2\x13\x02\x24\x0c\x00\x00\x00",
    },
    Architecture {
        name: "loong64",
        bits: Many,
        order: LittleFirst,
        machine: 258,
        flags: 0x43,
        // ori a0, zero, 0; ori a7, zero, 93; syscall 0
        code: b"\x04\x00\x80\x03\x0b\x74\x81\x03\x00\x00\x2b\x00",
    },
];

/// Whether Linux programs of an architecture run on this machine; `None` when there is none to try.
pub fn runs(architecture: &str) -> Option<bool> {
    let known = ARCHITECTURES.iter().find(|known| known.name == architecture)?;
    known.try_to_run().ok()
}

/// Architectures of whose programs it is known that they run on this machine.
pub fn architectures_that_run() -> Vec<&'static str> {
    let runs = |known: &&Architecture| known.try_to_run().is_ok_and(|runs| runs);
    ARCHITECTURES.iter().filter(runs).map(|known| known.name).collect()
}

impl Architecture {
    fn try_to_run(&self) -> std::io::Result<bool> {
        // An emulator opens the program by the path that the kernel gives it, so the descriptor stays open.
        let flags = MemfdFlags::EXEC;
        let memory = match memfd_create("probe", flags) {
            // Kernels before 6.3 do not know the flag, and do not need it.
            Err(Errno::INVAL) => memfd_create("probe", MemfdFlags::empty()),
            other => other,
        };
        let mut file = File::from(memory?);
        file.write_all(&self.program())?;
        let status = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        Ok(status.is_ok_and(|status| status.success()))
    }

    /// The file: an ELF header, one program header, and the code.
    fn program(&self) -> Vec<u8> {
        let headers = if self.bits == Many { 64 + 56 } else { 52 + 32 };
        let size = headers + u32::try_from(self.code.len()).unwrap_or(0);
        let mut out = Elf { bits: self.bits, order: self.order, bytes: Vec::new() };
        out.bytes.extend(b"\x7fELF");
        out.bytes.push(if self.bits == Many { 2 } else { 1 });
        out.bytes.push(if self.order == BigFirst { 2 } else { 1 });
        out.bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.half(2);
        out.half(self.machine);
        out.word(1);
        out.address(BASE + headers);
        out.address(if self.bits == Many { 64 } else { 52 });
        out.address(0);
        out.word(self.flags);
        for half in if self.bits == Many { [64, 56, 1, 0, 0, 0] } else { [52, 32, 1, 0, 0, 0] } {
            out.half(half);
        }
        // The whole file, to be read and executed.
        out.word(1);
        if self.bits == Many {
            out.word(5);
        }
        for address in [0, BASE, BASE, size, size] {
            out.address(address);
        }
        if self.bits == Few {
            out.word(5);
        }
        out.address(0x1_0000);
        out.bytes.extend(self.code);
        out.bytes
    }
}

/// Writes numbers as the header of an architecture has them.
struct Elf {
    bits: Bits,
    order: Order,
    bytes: Vec<u8>,
}

impl Elf {
    fn half(&mut self, value: u16) {
        match self.order {
            LittleFirst => self.bytes.extend(value.to_le_bytes()),
            BigFirst => self.bytes.extend(value.to_be_bytes()),
        }
    }

    fn word(&mut self, value: u32) {
        match self.order {
            LittleFirst => self.bytes.extend(value.to_le_bytes()),
            BigFirst => self.bytes.extend(value.to_be_bytes()),
        }
    }

    fn address(&mut self, value: u32) {
        match (self.bits, self.order) {
            (Few, _) => self.word(value),
            (Many, LittleFirst) => self.bytes.extend(u64::from(value).to_le_bytes()),
            (Many, BigFirst) => self.bytes.extend(u64::from(value).to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_machine_runs_its_own_programs() {
        let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        assert_eq!(runs(own), Some(true));
        assert!(architectures_that_run().contains(&own));
        assert_eq!(runs("sparc64"), None);
    }

    /// Each program is one that an emulator of its architecture runs to its end.
    #[test]
    fn emulators_run_the_programs() {
        let emulators = [
            ("386", "i386"),
            ("arm64", "aarch64"),
            ("arm", "arm"),
            ("riscv64", "riscv64"),
            ("ppc64le", "ppc64le"),
            ("s390x", "s390x"),
            ("mips64le", "mips64el"),
            ("loong64", "loongarch64"),
        ];
        let place = tempfile::tempdir().unwrap();
        for (name, emulator) in emulators {
            let emulator = format!("/usr/bin/qemu-{emulator}-static");
            if !Path::new(&emulator).exists() {
                println!("SKIP: {emulator} is not installed");
                continue;
            }
            let known = ARCHITECTURES.iter().find(|known| known.name == name).unwrap();
            let path = place.path().join(name);
            fs_err::write(&path, known.program()).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs_err::set_permissions(&path, mode).unwrap();
            let status = Command::new(&emulator).arg(&path).status().unwrap();
            assert!(status.success(), "{name}: {status}");
        }
    }
}
