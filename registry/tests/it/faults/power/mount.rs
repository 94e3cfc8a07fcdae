// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A [`Disk`] as a folder that another process works in, until its power is cut.
//!
//! A cut freezes the disk before an operation: that one and all others wait. When the process was killed they
//! fail, and the disk is taken out as it is. Locks and shared memory are the kernel's, which forgets them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow,
    WriteFlags,
};
use tokio::sync::Notify;

use super::disk::{Disk, Honesty, Node, ROOT};

/// Everything happens through the kernel, so what it knows stays true.
const KNOWN_FOR: Duration = Duration::from_hours(1);
const BLOCK: u32 = 4096;

/// A mounted disk.
pub(super) struct Mounted {
    session: Option<BackgroundSession>,
    folder: tempfile::TempDir,
    power: Arc<Power>,
}

/// What the file system and the test share.
struct Power {
    state: Mutex<State>,
    changed: Condvar,
    frozen: Notify,
}

struct State {
    disk: Disk,
    supply: Supply,
    /// Operations that change something or make it durable.
    operations: u64,
    cut_when: Option<Condition>,
    /// What a folder had when its handle was opened: it may change while it is listed.
    listings: HashMap<u64, Vec<(u64, FileType, OsString)>>,
    handles: u64,
}

/// Takes the number of the operation that is next.
type Condition = Box<dyn Fn(u64, &Disk) -> bool + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Supply {
    On,
    /// Nothing happens any more.
    Frozen,
    /// Nobody is there who could see what fails.
    Off,
}

impl Mounted {
    /// Mounts the disk.
    ///
    /// # Panics
    /// When file systems in user space are not to be had: nothing is proven without.
    pub(super) fn mount(disk: Disk) -> Self {
        assert!(Path::new("/dev/fuse").exists(), "no /dev/fuse: load the kernel module `fuse`");
        let state = State {
            disk,
            supply: Supply::On,
            operations: 0,
            cut_when: None,
            listings: HashMap::new(),
            handles: 0,
        };
        let power = Power { state: Mutex::new(state), changed: Condvar::new(), frozen: Notify::new() };
        let power = Arc::new(power);
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power".to_owned()), MountOption::NoAtime];
        let session = Session::new(Fuse(Arc::clone(&power)), folder.path(), &config)
            .unwrap_or_else(|error| panic!("cannot mount (be root, or install fusermount3): {error}"));
        Self { session: Some(session.spawn().unwrap()), folder, power }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Freezes the disk before the `n`-th operation from now.
    pub(super) fn cut_before(&self, n: u64) {
        let at = self.power.lock().operations + n;
        self.cut_once(Box::new(move |operation, _| operation >= at));
    }

    /// Freezes the disk before the first operation that finds `condition` true.
    pub(super) fn cut_when(&self, condition: impl Fn(&Disk) -> bool + Send + 'static) {
        self.cut_once(Box::new(move |_, disk| condition(disk)));
    }

    fn cut_once(&self, condition: Condition) {
        self.power.lock().cut_when = Some(condition);
    }

    /// Waits until it is frozen.
    pub(super) async fn frozen(&self) {
        let frozen = self.power.frozen.notified();
        if self.power.lock().supply == Supply::On {
            frozen.await;
        }
    }

    /// Freezes it now, if it is not.
    pub(super) fn freeze(&self) {
        self.power.freeze(&mut self.power.lock());
    }

    /// Lets what waits fail. Whoever works in the folder was sent SIGKILL.
    pub(super) fn switch_off(&self) {
        self.freeze();
        self.power.lock().supply = Supply::Off;
        self.power.changed.notify_all();
    }

    /// Takes the disk out as the cut leaves it. Nobody works in the folder any more.
    pub(super) fn take_out(mut self, cut: impl FnOnce(Disk) -> Disk) -> Disk {
        self.switch_off();
        if let Some(session) = self.session.take() {
            session.umount_and_join().unwrap();
        }
        let empty = Disk::new(Honesty::Honest);
        cut(std::mem::replace(&mut self.power.lock().disk, empty))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.switch_off();
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("unmount {}: {error}", self.folder.path().display());
        }
    }
}

impl Power {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn freeze(&self, state: &mut State) {
        if state.supply == Supply::On {
            state.supply = Supply::Frozen;
            self.frozen.notify_waiters();
        }
    }

    /// The disk, for an operation that only looks.
    fn look(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.lock();
        let state = self.changed.wait_while(state, |state| state.supply == Supply::Frozen).unwrap();
        if state.supply == Supply::Off { Err(Errno::EIO) } else { Ok(state) }
    }

    /// The disk, for an operation that a cut may prevent.
    fn work(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.lock();
        state.operations += 1;
        if state.cut_when.as_ref().is_some_and(|condition| condition(state.operations, &state.disk)) {
            self.freeze(&mut state);
        }
        drop(state);
        self.look()
    }
}

struct Fuse(Arc<Power>);

impl Fuse {
    fn attributes(disk: &Disk, node: u64) -> Result<FileAttr, Errno> {
        let (kind, perm, size, modified) = match disk.node(node)? {
            Node::File(file) => (FileType::RegularFile, 0o644, file.bytes.len() as u64, file.modified),
            Node::Folder(_) => (FileType::Directory, 0o755, 0, SystemTime::UNIX_EPOCH),
        };
        Ok(FileAttr {
            ino: INodeNo(node),
            size,
            blocks: size.div_ceil(512),
            atime: modified,
            mtime: modified,
            ctime: modified,
            crtime: modified,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }
}

fn attempt<T>(work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    work()
}

/// Answers with what was done, or with why it was not.
macro_rules! answer {
    ($reply:ident, $outcome:expr, $done:pat => $answer:expr) => {
        match attempt(|| $outcome) {
            Ok($done) => $answer,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, {
            let state = self.0.look()?;
            Self::attributes(&state.disk, state.disk.look_up(parent.0, name)?)
        }, attributes => reply.entry(&KNOWN_FOR, &attributes, Generation(0)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, Self::attributes(&self.0.look()?.disk, node.0),
            attributes => reply.attr(&KNOWN_FOR, &attributes));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, {
            let mut state = self.0.work()?;
            if let Some(size) = size {
                state.disk.set_length(node.0, size)?;
            }
            Self::attributes(&state.disk, node.0)
        }, attributes => reply.attr(&KNOWN_FOR, &attributes));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        answer!(reply, {
            let mut state = self.0.work()?;
            let node = state.disk.make_folder(parent.0, name)?;
            Self::attributes(&state.disk, node)
        }, attributes => reply.entry(&KNOWN_FOR, &attributes, Generation(0)));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        answer!(reply, {
            let mut state = self.0.work()?;
            let node = state.disk.create(parent.0, name)?;
            Self::attributes(&state.disk, node)
        }, attributes => {
            let (generation, handle) = (Generation(0), FileHandle(0));
            reply.created(&KNOWN_FOR, &attributes, generation, handle, FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.work()?.disk.remove_file(parent.0, name), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.work()?.disk.remove_folder(parent.0, name), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(reply, {
            let mut state = self.0.work()?;
            if !flags.is_empty() {
                return Err(Errno::EINVAL);
            }
            state.disk.rename((parent.0, name), (new_parent.0, new_name))
        }, () => reply.ok());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.0.look(), _state => {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, {
            let mut state = self.0.look()?;
            let bytes = &state.disk.file(node.0)?.bytes;
            let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let end = begin.saturating_add(size as usize).min(bytes.len());
            Ok(bytes[begin..end].to_vec())
        }, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = u32::try_from(data.len()).unwrap();
        answer!(reply, self.0.work()?.disk.write(node.0, offset, data), () => reply.written(written));
    }

    /// The end of a handle, which makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.work()?.disk.sync_file(node.0), () => reply.ok());
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.work()?.disk.sync_folder(node.0), () => reply.ok());
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, {
            let mut state = self.0.look()?;
            let entries = state.disk.folder(node.0)?.entries.iter().map(|(name, node)| {
                Ok((*node, Self::attributes(&state.disk, *node)?.kind, name.clone()))
            });
            let listing = entries.collect::<Result<_, Errno>>()?;
            state.handles += 1;
            let handle = state.handles;
            state.listings.insert(handle, listing);
            Ok(handle)
        }, handle => reply.opened(FileHandle(handle), FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        answer!(reply, {
            let state = self.0.look()?;
            let listing = state.listings.get(&handle.0).ok_or(Errno::EBADF)?;
            Ok(listing.iter().zip(1..).skip(usize::try_from(offset).unwrap()).map(|((node, kind, name), next)| {
                (*node, *kind, name.clone(), next)
            }).collect::<Vec<_>>())
        }, entries => {
            for (node, kind, name, next) in entries {
                if reply.add(INodeNo(node), next, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.lock().listings.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCKS: u64 = 1 << 20;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK, 255, BLOCK);
    }
}

const _: () = assert!(ROOT == INodeNo::ROOT.0);
