//! Getting a vCPU thread out of `KVM_RUN`: a signal whose handler sets `immediate_exit`.
//!
//! An empty handler would lose a signal that lands between the check of the stop flag and `KVM_RUN`. Here the handler
//! itself writes `immediate_exit` into the thread's `kvm_run`, so that the next `KVM_RUN` returns at once. The loop's
//! order is therefore: clear `immediate_exit`, check the flag, run.

use kvm_ioctls::VcpuFd;
use std::cell::Cell;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// Where this thread's `immediate_exit` is; null while it runs no vCPU.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // try_with: the signal may arrive while the thread's storage is being torn down.
    let _ = IMMEDIATE_EXIT.try_with(|cell| {
        let pointer = cell.get();
        if !pointer.is_null() {
            // SAFETY: `arm` stored a pointer into the kvm_run of a VcpuFd that outlives the arming; only this thread
            // and its own handler write it.
            unsafe { pointer.write_volatile(1) };
        }
    });
}

/// Installs the handler for the whole process.
///
/// # Errors
/// When the system refuses it.
pub fn install() -> std::io::Result<()> {
    register_signal_handler(SIGRTMIN(), handler).map_err(Into::into)
}

/// While it lives, a kick of this thread reaches the vCPU.
#[derive(Debug)]
pub struct Armed(());

/// Connects this thread's kicks with a vCPU, which must outlive the result.
pub fn arm(vcpu: &mut VcpuFd) -> Armed {
    let pointer = ptr::from_mut(&mut vcpu.get_kvm_run().immediate_exit);
    IMMEDIATE_EXIT.with(|cell| cell.set(pointer));
    Armed(())
}

impl Drop for Armed {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.with(|cell| cell.set(ptr::null_mut()));
    }
}

/// Kicks a vCPU thread out of the guest. Harmless when it is not in it.
pub fn kick<T>(thread: &JoinHandle<T>) {
    // The handle was not joined, so the thread id is valid even if the thread has returned.
    kick_thread(thread.as_pthread_t());
}

/// The calling thread, to be kicked by others.
pub(super) fn current_thread() -> libc::pthread_t {
    // SAFETY: no preconditions, cannot fail.
    unsafe { libc::pthread_self() }
}

/// The same for a thread that is known not to have ended.
pub(super) fn kick_thread(thread: libc::pthread_t) {
    // SAFETY: the caller promises that the thread was neither joined nor ended detached; the signal has a handler.
    unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
}
