//! The pause program and its image, made from what krust carries (upstream: `build/pause/linux/pause.c`).
//!
//! The first process of a pod's sandbox holds the pod's namespaces and, where the pod shares its process
//! namespace, reaps what others leave behind. That needs four system calls, so the program is assembled here
//! into a static ELF file of some 200 bytes, for the engine's architecture, instead of being pulled.
//!
//! It blocks every signal and takes them one by one. A blocked signal is queued for process 1 as well, although
//! the kernel drops unblocked ones without a handler there; so there are no handlers, and no races:
//!
//! ```text
//! rt_sigprocmask(SIG_BLOCK, ~0, NULL)
//! wait: switch rt_sigtimedwait(~0, NULL, NULL)
//!           SIGINT, SIGTERM: exit_group(0)
//!           SIGCHLD:         while wait4(-1, NULL, WNOHANG, NULL) > 0 {}
//!       goto wait
//! ```

use sha2::{Digest, Sha256};

/// Path of the program in its image.
pub const PATH: &str = "/pause";
/// Repository of the image; its tag is derived from the program, so a changed program is a new image.
pub const REPOSITORY: &str = "krust.dev/pause";

/// Architectures that there is a pause program for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    /// Reads Go's (`amd64`) and the kernel's (`x86_64`) names.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "amd64" | "x86_64" => Some(Self::X86_64),
            "arm64" | "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// That of this program.
    pub fn host() -> Option<Self> {
        Self::parse(std::env::consts::ARCH)
    }

    /// Go's name, as image configurations have it.
    pub fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

/// The image reference for an architecture.
pub fn reference(architecture: Architecture) -> String {
    let digest = hex::encode(Sha256::digest(program(architecture)));
    format!("{REPOSITORY}:{}", &digest[..16])
}

/// The image's only layer: a tar archive, the same bytes every time.
pub fn layer(architecture: Architecture) -> std::io::Result<Vec<u8>> {
    let program = program(architecture);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, PATH.trim_start_matches('/'), program.as_slice())?;
    archive.into_inner()
}

/// The program as an ELF executable.
pub fn program(architecture: Architecture) -> Vec<u8> {
    let code = match architecture {
        Architecture::X86_64 => x86_64::code(),
        Architecture::Aarch64 => aarch64::code(),
    };
    elf(architecture, &code)
}

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;
const SIGCHLD: u8 = 17;
/// Bytes of the kernel's sigset_t.
const SIGSET_BYTES: u8 = 8;
const WNOHANG: u8 = 1;

const ELF_HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
/// Where the file is mapped.
const BASE_ADDRESS: u64 = 0x40_0000;

/// Wraps code in the smallest file that the kernel loads: an ELF header, one read-and-execute segment, the code.
fn elf(architecture: Architecture, code: &[u8]) -> Vec<u8> {
    let code_offset = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES;
    let size = code_offset + code.len() as u64;
    let machine: u16 = match architecture {
        Architecture::X86_64 => 62,
        Architecture::Aarch64 => 183,
    };
    let mut file = Vec::with_capacity(size as usize);
    // e_ident: magic, 64 bits, little-endian, version 1, System V; then ET_EXEC.
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(2u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend((BASE_ADDRESS + code_offset).to_le_bytes()); // e_entry
    file.extend(ELF_HEADER_BYTES.to_le_bytes()); // e_phoff
    file.extend(0u64.to_le_bytes()); // e_shoff
    file.extend(0u32.to_le_bytes()); // e_flags
    file.extend((ELF_HEADER_BYTES as u16).to_le_bytes());
    file.extend((PROGRAM_HEADER_BYTES as u16).to_le_bytes());
    file.extend(1u16.to_le_bytes()); // e_phnum
    file.extend([0; 6]); // no sections
    // Program header: PT_LOAD, readable and executable, the whole file.
    file.extend(1u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(BASE_ADDRESS.to_le_bytes());
    file.extend(BASE_ADDRESS.to_le_bytes());
    file.extend(size.to_le_bytes());
    file.extend(size.to_le_bytes());
    // Alignment: the largest page size in use, so that the file loads with 64 KiB pages too.
    file.extend(0x1_0000u64.to_le_bytes());
    file.extend(code);
    file
}

/// x86_64: the call's number in rax, arguments in rdi, rsi, rdx, r10; the result in rax.
mod x86_64 {
    use super::{SIGCHLD, SIGINT, SIGSET_BYTES, SIGTERM, WNOHANG};

    const WAIT4: u32 = 61;
    const RT_SIGPROCMASK: u32 = 14;
    const RT_SIGTIMEDWAIT: u32 = 128;
    const EXIT_GROUP: u32 = 231;

    pub fn code() -> Vec<u8> {
        let mut code = Vec::new();
        // The signal set: all ones, on the stack; rbx keeps its address, which calls preserve.
        code.extend([0x6a, 0xff]); // push -1
        code.extend([0x48, 0x89, 0xe3]); // mov rbx, rsp
        code.extend([0x31, 0xff]); // xor edi, edi: SIG_BLOCK
        code.extend([0x48, 0x89, 0xde]); // mov rsi, rbx
        code.extend([0x31, 0xd2]); // xor edx, edx
        code.extend([0x6a, SIGSET_BYTES, 0x41, 0x5a]); // push 8; pop r10
        call(&mut code, RT_SIGPROCMASK);

        let wait = code.len();
        code.extend([0x48, 0x89, 0xdf]); // mov rdi, rbx
        code.extend([0x31, 0xf6]); // xor esi, esi
        code.extend([0x31, 0xd2]); // xor edx, edx
        code.extend([0x6a, SIGSET_BYTES, 0x41, 0x5a]); // push 8; pop r10
        call(&mut code, RT_SIGTIMEDWAIT);
        code.extend([0x83, 0xf8, SIGINT]); // cmp eax, SIGINT
        let interrupted = forward(&mut code, 0x74); // je exit
        code.extend([0x83, 0xf8, SIGTERM]); // cmp eax, SIGTERM
        let terminated = forward(&mut code, 0x74); // je exit
        code.extend([0x83, 0xf8, SIGCHLD]); // cmp eax, SIGCHLD
        back(&mut code, 0x75, wait); // jne wait

        let reap = code.len();
        code.extend([0x6a, 0xff, 0x5f]); // push -1; pop rdi: any child
        code.extend([0x31, 0xf6]); // xor esi, esi
        code.extend([0x6a, WNOHANG, 0x5a]); // push WNOHANG; pop rdx
        code.extend([0x45, 0x31, 0xd2]); // xor r10d, r10d
        call(&mut code, WAIT4);
        code.extend([0x85, 0xc0]); // test eax, eax
        back(&mut code, 0x7f, reap); // jg reap
        back(&mut code, 0xeb, wait); // jmp wait

        land(&mut code, interrupted);
        land(&mut code, terminated);
        code.extend([0x31, 0xff]); // xor edi, edi
        call(&mut code, EXIT_GROUP);
        code
    }

    fn call(code: &mut Vec<u8>, number: u32) {
        code.push(0xb8); // mov eax, number
        code.extend(number.to_le_bytes());
        code.extend([0x0f, 0x05]); // syscall
    }

    /// A short jump whose target is not known yet; returns where its displacement stands.
    fn forward(code: &mut Vec<u8>, opcode: u8) -> usize {
        code.extend([opcode, 0]);
        code.len() - 1
    }

    /// Lets a forward jump land here.
    fn land(code: &mut [u8], displacement: usize) {
        code[displacement] = (code.len() - displacement - 1) as u8;
    }

    /// A short jump to an earlier place. Displacements count from the end of the instruction.
    fn back(code: &mut Vec<u8>, opcode: u8, target: usize) {
        let end = code.len() + 2;
        code.extend([opcode, (target as isize - end as isize) as u8]);
    }
}

/// aarch64: the call's number in x8, arguments in x0 to x3; the result in x0. Every instruction is one word.
mod aarch64 {
    use super::{SIGCHLD, SIGINT, SIGSET_BYTES, SIGTERM, WNOHANG};

    const WAIT4: u16 = 260;
    const RT_SIGPROCMASK: u16 = 135;
    const RT_SIGTIMEDWAIT: u16 = 137;
    const EXIT_GROUP: u16 = 94;

    const SVC: u32 = 0xd400_0001;
    /// The stack pointer as a base register, the zero register elsewhere.
    const R31: u32 = 31;
    const EQ: u32 = 0;
    const NE: u32 = 1;
    const GT: u32 = 12;

    pub fn code() -> Vec<u8> {
        let mut words = vec![
            // The signal set: all ones, on the stack.
            movn(9, 0),
            0xf81f_0c00 | (R31 << 5) | 9, // str x9, [sp, #-16]!
            movz(0, 0),                   // SIG_BLOCK
            add_immediate(1, R31, 0),     // mov x1, sp
            movz(2, 0),
            movz(3, u16::from(SIGSET_BYTES)),
            movz(8, RT_SIGPROCMASK),
            SVC,
        ];
        let wait = words.len();
        words.extend([
            add_immediate(0, R31, 0),
            movz(1, 0),
            movz(2, 0),
            movz(3, u16::from(SIGSET_BYTES)),
            movz(8, RT_SIGTIMEDWAIT),
            SVC,
        ]);
        words.push(compare(0, SIGINT));
        let interrupted = words.len();
        words.push(0);
        words.push(compare(0, SIGTERM));
        let terminated = words.len();
        words.push(0);
        words.push(compare(0, SIGCHLD));
        words.push(branch_if(NE, words.len(), wait));
        let reap = words.len();
        words.extend([
            movn(0, 0), // any child
            movz(1, 0),
            movz(2, u16::from(WNOHANG)),
            movz(3, 0),
            movz(8, WAIT4),
            SVC,
            compare(0, 0),
        ]);
        words.push(branch_if(GT, words.len(), reap));
        words.push(0x1400_0000 | (offset(words.len(), wait) & 0x03ff_ffff)); // b wait
        let exit = words.len();
        words[interrupted] = branch_if(EQ, interrupted, exit);
        words[terminated] = branch_if(EQ, terminated, exit);
        words.extend([movz(0, 0), movz(8, EXIT_GROUP), SVC]);
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn movz(register: u32, value: u16) -> u32 {
        0xd280_0000 | (u32::from(value) << 5) | register
    }

    /// Moves the complement of `value`.
    fn movn(register: u32, value: u16) -> u32 {
        0x9280_0000 | (u32::from(value) << 5) | register
    }

    fn add_immediate(register: u32, base: u32, value: u32) -> u32 {
        0x9100_0000 | (value << 10) | (base << 5) | register
    }

    fn compare(register: u32, value: u8) -> u32 {
        0xf100_0000 | (u32::from(value) << 10) | (register << 5) | R31
    }

    fn branch_if(condition: u32, from: usize, to: usize) -> u32 {
        0x5400_0000 | ((offset(from, to) & 0x7_ffff) << 5) | condition
    }

    /// Distances are counted in words, from the branch itself.
    fn offset(from: usize, to: usize) -> u32 {
        (to as i32 - from as i32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    /// A running program, ended with the test.
    struct Running {
        child: std::process::Child,
        _directory: tempfile::TempDir,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn start() -> Running {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pause");
        let program = program(Architecture::host().expect("tests run where krust runs"));
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let child = Command::new(&path)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Running {
            child,
            _directory: directory,
        }
    }

    /// The process sleeps, which it does nowhere but in its wait.
    fn wait_until_ready(pid: u32) {
        for _ in 0..500 {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            if status.lines().any(|line| line.starts_with("State:\tS")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the program does not wait");
    }

    #[test]
    fn stop_signals_end_it_and_others_do_not() {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut running = start();
            let child = &mut running.child;
            wait_until_ready(child.id());
            let pid = Pid::from_raw(child.id() as i32);
            for ignored in [Signal::SIGHUP, Signal::SIGCHLD, Signal::SIGUSR1] {
                kill(pid, ignored).unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(child.try_wait().unwrap(), None);
            kill(pid, signal).unwrap();
            let status = child.wait().unwrap();
            assert_eq!((status.code(), status.signal()), (Some(0), None));
        }
    }

    #[test]
    fn the_image_is_the_same_every_time_and_differs_by_architecture() {
        let architectures = [Architecture::X86_64, Architecture::Aarch64];
        for architecture in architectures {
            assert_eq!(layer(architecture).unwrap(), layer(architecture).unwrap());
            let program = program(architecture);
            assert!(program.len() < 512, "{}", program.len());
            // The segment covers the whole file.
            assert_eq!(program[96..104], (program.len() as u64).to_le_bytes());
        }
        assert_ne!(reference(architectures[0]), reference(architectures[1]));
    }

    #[test]
    fn aarch64_branches_land_where_they_should() {
        let code = program(Architecture::Aarch64)[120..].to_vec();
        let word = |index: usize| u32::from_le_bytes(code[index * 4..index * 4 + 4].try_into().unwrap());
        // In words: b.eq +14 and b.eq +12 to the exit, b.ne -11 to the wait, b.gt -7 to the reaping, b -20 to the wait.
        let expected = [
            (15, 0x5400_0000 | 14 << 5),
            (17, 0x5400_0000 | 12 << 5),
            (19, 0x5400_0001 | (0x8_0000 - 11) << 5),
            (27, 0x5400_000c | (0x8_0000 - 7) << 5),
            (28, 0x1400_0000 | (0x400_0000 - 20)),
        ];
        for (index, instruction) in expected {
            assert_eq!(word(index), instruction, "word {index}: {:#x}", word(index));
        }
        assert_eq!(code.len(), 32 * 4);
    }
}
