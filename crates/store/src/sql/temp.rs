//! A bound on what sorting and temporary tables of one statement put on disk.
//!
//! SQLite keeps a few MiB of a sort in memory and moves the rest to files that have no name. It has
//! no limit for those, so the connection of a statement uses a file system layer of its own: the
//! system's, with the writes to such files counted. Beyond the budget a write fails as on a full
//! disk, and the statement ends. The counts belong to the thread, as a statement runs on one.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::ffi;

/// Name of the layer, as connections ask for it.
pub(super) const VFS_NAME: &CStr = c"throughline-sql";

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget { left: 0, is_over: false }) };
}

#[derive(Clone, Copy)]
struct Budget {
    /// Bytes that may still be written.
    left: u64,
    is_over: bool,
}

/// Gives the statements of this thread a budget, bytes.
pub(super) fn allow(bytes: u64) {
    BUDGET.set(Budget { left: bytes, is_over: false });
}

/// Whether a write was refused since [`allow`].
pub(super) fn is_over() -> bool {
    BUDGET.get().is_over
}

/// Registers the layer, once a process.
///
/// # Errors
/// What SQLite answered instead of success.
pub(super) fn register() -> Result<(), c_int> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    match REGISTERED.get_or_init(make) {
        &ffi::SQLITE_OK => Ok(()),
        code => Err(*code),
    }
}

/// What stands behind the system's part of an open file.
#[repr(C)]
struct Tail {
    /// The system's methods with [`write`] in the place of its own.
    methods: ffi::sqlite3_io_methods,
    system: *const ffi::sqlite3_io_methods,
    /// Bytes that this file has.
    length: u64,
}

/// Where the tail lies behind the beginning of a file, bytes: the system's part, rounded up.
static TAIL_OFFSET: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "SQLite's interface of file systems is one of raw pointers")]
fn make() -> c_int {
    // SAFETY: a null name asks for the default, which lives as long as the process. Ours is leaked,
    // so that it does too.
    unsafe {
        let system = ffi::sqlite3_vfs_find(std::ptr::null());
        if system.is_null() {
            return ffi::SQLITE_NOTFOUND;
        }
        let offset = usize::try_from((*system).szOsFile).unwrap_or(0);
        let offset = offset.next_multiple_of(align_of::<Tail>());
        let Ok(size) = c_int::try_from(offset + size_of::<Tail>()) else {
            return ffi::SQLITE_TOOBIG;
        };
        TAIL_OFFSET.store(offset, Ordering::Relaxed);
        let mut layer = *system;
        layer.szOsFile = size;
        layer.pNext = std::ptr::null_mut();
        layer.zName = VFS_NAME.as_ptr();
        layer.pAppData = system.cast::<c_void>();
        layer.xOpen = Some(open);
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(layer)), 0)
    }
}

#[expect(unsafe_code, reason = "SQLite's interface of file systems is one of raw pointers")]
unsafe extern "C" fn open(
    layer: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes for the file, as `make` asked for, aligned to 8 at
    // least; the system's part lies at its beginning, the tail behind it, and it is written before it is read.
    unsafe {
        let system = (*layer).pAppData.cast::<ffi::sqlite3_vfs>();
        let Some(system_open) = (*system).xOpen else { return ffi::SQLITE_CANTOPEN };
        // Nothing with a name is ever opened: the tables are ours and the database is in memory.
        if !name.is_null() {
            return ffi::SQLITE_CANTOPEN;
        }
        let code = system_open(system, name, file, flags, out_flags);
        if code != ffi::SQLITE_OK || (*file).pMethods.is_null() {
            return code;
        }
        let methods = (*file).pMethods;
        let tail = tail_of(file);
        let mut counted = *methods;
        counted.xWrite = Some(write);
        tail.write(Tail { methods: counted, system: methods, length: 0 });
        (*file).pMethods = tail.cast::<ffi::sqlite3_io_methods>();
        ffi::SQLITE_OK
    }
}

#[expect(unsafe_code, reason = "SQLite's interface of file systems is one of raw pointers")]
unsafe fn tail_of(file: *mut ffi::sqlite3_file) -> *mut Tail {
    // SAFETY: the caller has a file of our layer, behind whose system part there is room for it.
    unsafe { file.cast::<u8>().add(TAIL_OFFSET.load(Ordering::Relaxed)).cast::<Tail>() }
}

#[expect(unsafe_code, reason = "SQLite's interface of file systems is one of raw pointers")]
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: only files that `open` made have this method, and they have a tail.
    unsafe {
        let tail = tail_of(file);
        let end = u64::try_from(offset.saturating_add(i64::from(count))).unwrap_or(u64::MAX);
        let grown = end.saturating_sub((*tail).length);
        let mut budget = BUDGET.get();
        if grown > budget.left {
            budget.is_over = true;
            BUDGET.set(budget);
            return ffi::SQLITE_FULL;
        }
        let Some(system_write) = (*(*tail).system).xWrite else { return ffi::SQLITE_IOERR_WRITE };
        let code = system_write(file, bytes, count, offset);
        if code == ffi::SQLITE_OK {
            budget.left -= grown;
            BUDGET.set(budget);
            (*tail).length = (*tail).length.max(end);
        }
        code
    }
}
