//! In a process of its own, because it changes what may be done to the whole process.

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
use rustix::thread::no_new_privs;
use std::thread;
use token_broker_guard::harden;

#[test]
fn what_is_asked_for_holds_also_in_threads_that_follow() {
    assert_eq!(harden(), []);
    assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    let inherited = thread::spawn(no_new_privs).join().unwrap();
    assert_eq!((no_new_privs(), inherited), (Ok(true), Ok(true)));
    // More than once is no harm.
    assert_eq!(harden(), []);
}
