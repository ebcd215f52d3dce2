//! What specifications say by what the machine has: versions of control groups, swap, huge pages, user namespaces.

use super::*;
use crate::runtime::SecurityContext;

struct Machine {
    cgroups: Abilities,
    user_ids: Option<u32>,
}

fn container(machine: &Machine, privileged: bool) -> Spec {
    let config = ContainerConfig {
        command: vec!["/bin/app".into()],
        resources: Resources {
            memory_limit_bytes: 64 << 20,
            ..Default::default()
        },
        security: SecurityContext {
            privileged,
            ..Default::default()
        },
        mounts: vec![crate::runtime::Mount {
            container_path: "/v".into(),
            host_path: "/".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let file = || PathBuf::from("/dev/null");
    let spec = ContainerSpec {
        config: &config,
        sandbox: &SandboxConfig::default(),
        sandbox_pid: 7,
        target_pid: None,
        image: &ImageDefaults::default(),
        user: &ResolvedUser::default(),
        files: &SharedFiles {
            hosts: file(),
            resolv_conf: file(),
            hostname: file(),
            shm: file(),
        },
        message_file: None,
        cgroup: "/krust/c".into(),
        limits: Limits {
            capabilities: u64::MAX,
            oom_score_adj_min: None,
            cgroups: machine.cgroups,
        },
        user_ids: machine.user_ids,
    };
    spec.build().unwrap()
}

fn path_of(spec: &Spec, kind: LinuxNamespaceType) -> Option<Option<PathBuf>> {
    let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    let found = namespaces.into_iter().find(|namespace| namespace.typ() == kind);
    found.map(|namespace| namespace.path().clone())
}

#[test]
fn what_the_kernel_cannot_limit_is_left_out() {
    let machine = |unified, swap, huge_pages| Machine {
        cgroups: Abilities {
            unified,
            swap,
            huge_pages,
        },
        user_ids: None,
    };
    for (machine, privileged, own_cgroups, swap) in [
        (machine(false, false, false), false, false, None),
        (machine(false, true, false), false, false, Some(64 << 20)),
        (machine(true, true, true), false, true, Some(64 << 20)),
        (machine(true, true, true), true, false, Some(64 << 20)),
    ] {
        let spec = container(&machine, privileged);
        let own = path_of(&spec, LinuxNamespaceType::Cgroup);
        assert_eq!(own, own_cgroups.then_some(None), "the host's hierarchy is hidden");
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), swap));
        assert_eq!(resources.hugepage_limits().is_some(), machine.cgroups.huge_pages);
        assert_eq!(path_of(&spec, LinuxNamespaceType::User), None);
    }
}

#[test]
fn users_of_a_pod_are_those_of_its_sandbox() {
    let machine = Machine {
        cgroups: Abilities::default(),
        user_ids: Some(131_072),
    };
    let spec = container(&machine, false);
    let joined = path_of(&spec, LinuxNamespaceType::User).unwrap();
    assert_eq!(joined, Some("/proc/7/ns/user".into()));
    let expected = Some(mappings(131_072).unwrap());
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!((linux.uid_mappings(), linux.gid_mappings()), (&expected, &expected));
    for mount in spec.mounts().iter().flatten() {
        let translated = mount.destination() == Path::new("/v");
        assert_eq!(mount.uid_mappings().is_some(), translated, "{mount:?}");
    }
}

#[test]
fn processes_are_killed_for_memory_together_where_the_kernel_can() {
    for unified in [false, true] {
        let cgroups = Abilities {
            unified,
            ..Default::default()
        };
        let spec = container(
            &Machine {
                cgroups,
                user_ids: None,
            },
            false,
        );
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().clone())
            .unwrap();
        let told = resources
            .unified()
            .as_ref()
            .and_then(|files| files.get("memory.oom.group"));
        assert_eq!(told.map(String::as_str), unified.then_some("1"));
    }
}

#[test]
fn processes_are_mounted_as_nothing_else_than_that() {
    let machine = Machine {
        cgroups: Abilities::default(),
        user_ids: None,
    };
    let spec = container(&machine, false);
    let mut mounts = spec.mounts().iter().flatten();
    let proc = mounts.find(|mount| mount.destination() == Path::new("/proc")).unwrap();
    assert_eq!(proc.options().as_deref().unwrap(), ["nosuid", "noexec", "nodev"]);
}
