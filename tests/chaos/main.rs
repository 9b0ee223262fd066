//! Processes that are killed, paused and restarted under clients that go on: what a directory must survive.
//!
//! Each trial has processes of its own, this program again in another part; they end with it. One trial at a time, since each wants the whole machine.

mod crowd;
mod killed;
mod part;
mod restart;

use libtest_mimic::{Arguments, Failed, Trial};

type Outcome = Result<(), Failed>;

fn main() {
    if part::play() {
        return;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = vec![
        trial("an_instance_that_is_killed_is_no_caller_s_trouble_and_by_push_gone_in_3_s", killed::by_push),
        trial("an_instance_that_is_killed_is_no_caller_s_trouble_and_by_its_lease_gone_in_2_of_them", killed::by_lease),
        trial("a_registry_that_is_killed_while_it_writes_comes_back_with_all_it_knew", restart::in_mid_write),
        trial("a_registry_that_was_paused_evicts_nobody_who_lives", restart::paused),
        trial("ten_thousand_that_register_at_once_leave_every_client_its_directory", crowd::at_once),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial<F>(name: &str, run: fn() -> F) -> Trial
where
    F: Future<Output = Outcome> + 'static,
{
    Trial::test(name, move || tokio::runtime::Runtime::new()?.block_on(run()))
}
