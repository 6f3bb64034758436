//! The user that a service runs as.

use std::{
    ffi::{CStr, CString, OsString},
    io,
    mem::MaybeUninit,
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    ptr,
};

use rustix::process::{Gid, Uid};

use crate::spec::User;

/// As much as an entry of the user database may take: a name, a home and a shell.
const ENTRY_BYTES: usize = 64 * 1024;

/// As many groups as Linux lets a process have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// What a process gets to be a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name of the user; of a number that has none, the number.
    pub name: OsString,
    /// User.
    pub uid: Uid,
    /// First group.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

impl Account {
    /// Looks up who a service is to run as, with its group if it names one.
    ///
    /// # Errors
    /// In words: there is no such user or group, or this process cannot become it.
    pub fn of(user: &User) -> Result<Self, String> {
        let mut account = Self::find(&user.user)?;
        if let Some(name) = &user.group {
            account.gid = group(name)?;
            account.groups.push(account.gid);
        }
        if account.within_reach() {
            return Ok(account);
        }
        Err(format!("only root can start processes of another user, here {:?}", user.user))
    }

    /// Looks a user up by name or number in whatever databases the system uses.
    ///
    /// # Errors
    /// In words: there is no such user.
    pub fn find(user: &str) -> Result<Self, String> {
        let number = user.parse::<u32>().ok();
        let found = match number {
            Some(number) => look_up(|entry, bytes, found| {
                // SAFETY: all three are alive and of the stated size for the whole call.
                #[expect(unsafe_code, reason = "the user database is libc's")]
                unsafe {
                    libc::getpwuid_r(number, entry, bytes.as_mut_ptr().cast(), bytes.len(), found)
                }
            }),
            None => {
                let name = CString::new(user).map_err(|_| format!("no user is called {user:?}"))?;
                look_up(|entry, bytes, found| {
                    // SAFETY: as above, and the name ends with a zero.
                    #[expect(unsafe_code, reason = "the user database is libc's")]
                    unsafe {
                        let (bytes, length) = (bytes.as_mut_ptr().cast(), bytes.len());
                        libc::getpwnam_r(name.as_ptr(), entry, bytes, length, found)
                    }
                })
            }
        };
        match (found, number) {
            (Ok(Some(account)), _) => Ok(account),
            // A number needs no entry.
            (Ok(None), Some(number)) => Ok(Self {
                name: user.into(),
                uid: Uid::from_raw(number),
                gid: Gid::from_raw(number),
                groups: vec![Gid::from_raw(number)],
                home: PathBuf::from("/"),
                shell: PathBuf::from("/bin/sh"),
            }),
            (Ok(None), None) => Err(format!("there is no user called {user:?} on this machine")),
            (Err(error), _) => Err(format!("the user {user:?} cannot be looked up: {error}")),
        }
    }

    /// Whether a process like this one can become that user.
    pub fn within_reach(&self) -> bool {
        let me = rustix::process::geteuid();
        me.is_root() || me == self.uid
    }
}

/// Calls one of the two functions that look for an entry and copies what was found.
fn look_up(
    call: impl FnOnce(*mut libc::passwd, &mut [u8], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<Account>> {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut bytes = vec![0; ENTRY_BYTES];
    let mut found = ptr::null_mut();
    match call(entry.as_mut_ptr(), &mut bytes, &mut found) {
        0 if found.is_null() => return Ok(None),
        0 => {}
        // What the different databases say for "none".
        libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    // SAFETY: the call has filled `entry` and points into `bytes`; both are still here.
    #[expect(unsafe_code, reason = "the user database is libc's")]
    let (name, uid, gid, home, shell) = unsafe {
        let entry = entry.assume_init();
        let text = |pointer: *const libc::c_char| match pointer.is_null() {
            true => c"".to_owned(),
            false => CStr::from_ptr(pointer).to_owned(),
        };
        (text(entry.pw_name), entry.pw_uid, entry.pw_gid, text(entry.pw_dir), text(entry.pw_shell))
    };
    let groups = groups(&name, gid);
    let os = |text: CString| OsString::from_vec(text.into_bytes());
    Ok(Some(Account {
        name: os(name),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups,
        home: os(home).into(),
        shell: os(shell).into(),
    }))
}

/// Looks a group up by name or number.
fn group(name: &str) -> Result<Gid, String> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let text = CString::new(name).map_err(|_| format!("no group is called {name:?}"))?;
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut bytes = vec![0_u8; ENTRY_BYTES];
    let mut found = ptr::null_mut();
    // SAFETY: all are alive and of the stated size for the whole call, and `entry` is read only if
    // it was filled.
    #[expect(unsafe_code, reason = "the group database is libc's")]
    unsafe {
        let (room, length) = (bytes.as_mut_ptr().cast(), bytes.len());
        libc::getgrnam_r(text.as_ptr(), entry.as_mut_ptr(), room, length, &mut found);
        if found.is_null() {
            return Err(format!("there is no group called {name:?} on this machine"));
        }
        Ok(Gid::from_raw((*found).gr_gid))
    }
}

fn groups(name: &CStr, first: libc::gid_t) -> Vec<Gid> {
    let mut room = 64;
    loop {
        let mut groups: Vec<libc::gid_t> = vec![0; room];
        let mut count = libc::c_int::try_from(room).unwrap_or(libc::c_int::MAX);
        // SAFETY: there is room for as many groups as `count` says.
        #[expect(unsafe_code, reason = "the group database is libc's")]
        let done =
            unsafe { libc::getgrouplist(name.as_ptr(), first, groups.as_mut_ptr(), &mut count) };
        if done >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or_default());
            return groups.into_iter().map(Gid::from_raw).collect();
        }
        if room >= GROUPS_MAX {
            return vec![Gid::from_raw(first)];
        }
        room *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert!(root.groups.contains(&Gid::from_raw(0)));
        assert_eq!(Account::find("0").unwrap(), root);
    }

    #[test]
    fn a_user_that_there_is_not_is_named() {
        let words = Account::find("no-such-user-here").unwrap_err();
        assert!(words.contains("no-such-user-here"), "{words}");
        assert_eq!(Account::find("4123456789").unwrap().uid.as_raw(), 4_123_456_789);
    }
}
