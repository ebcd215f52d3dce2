//! What every runtime backend must do, run against each of them, and what is particular to one.
//!
//! A new backend is an `on` line for the common cases below.

mod cases;
#[path = "../support/containerd.rs"]
mod containerd;
mod docker;
#[path = "../support/dockerd.rs"]
mod dockerd;
#[path = "../support/images.rs"]
mod images;
mod images_by_command;
#[path = "../support/mounts.rs"]
mod mounts;
mod particular_to_containerd;
mod subject;

/// One test for every common case on a backend.
macro_rules! contract {
    (on $backend:ident: $($case:ident,)*) => {
        mod $backend {
            $(
                #[test]
                fn $case() {
                    super::subject::run(async {
                        let subject = super::subject::$backend().await;
                        super::cases::$case(&subject).await;
                        subject.clean().await;
                    });
                }
            )*
        }
    };
    ($($backend:ident,)* => $cases:tt) => {
        $( contract!(@expand $backend $cases); )*
    };
    (@expand $backend:ident { $($case:ident,)* }) => {
        contract!(on $backend: $($case,)*);
    };
}

contract! {
    on_fake, on_docker, on_containerd, => {
        a_pod_from_start_to_end,
        repeated_and_unknown_ids,
        exit_codes_reasons_and_times,
        what_cannot_start,
        stop_signal_then_kill,
        labels_annotations_and_attempts,
        pods_do_not_mix,
        twenty_pods_at_once,
        log_lines_and_options,
        following_a_log,
        a_last_line_without_newline,
        exec_streams_and_exit_codes,
        exec_with_stdin,
        exec_on_a_tty,
        exec_where_it_cannot,
        attach_to_stdin_and_stdout,
        termination_messages,
        images,
        events_tell_of_changes,
        removing_a_sandbox_removes_its_containers,
        usage_grows,
    }
}

// What needs a kernel, so not on the fake.
mod kernel {
    use super::cases::{network, security};
    use super::subject;

    macro_rules! on_kernels {
        ($($area:ident::$case:ident,)*) => {
            mod on_docker {
                $(
                    #[test]
                    fn $case() {
                        super::subject::run(async {
                            let subject = super::subject::on_docker().await;
                            super::$area::$case(&subject).await;
                            subject.clean().await;
                        });
                    }
                )*
            }
            mod on_containerd {
                $(
                    #[test]
                    fn $case() {
                        super::subject::run(async {
                            let subject = super::subject::on_containerd().await;
                            super::$area::$case(&subject).await;
                            subject.clean().await;
                        });
                    }
                )*
            }
        };
    }

    on_kernels! {
        security::seccomp_profiles,
        security::what_is_hidden_in_proc,
        security::mounts_propagate,
        security::read_only_all_the_way_down,
        security::runtimes_by_name,
        security::users_of_its_own,
        security::huge_pages_have_limits,
        security::one_container_sees_anothers_processes,
        security::logs_do_not_grow_without_bound,
        network::host_ports,
    }
}
