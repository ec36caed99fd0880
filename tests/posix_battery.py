# SPDX-License-Identifier: Apache-2.0
"""What a file system answers to what POSIX and Linux allow: one line for each thing tried, to be compared between file systems.

usage: posix_battery.py DIRECTORY

Runs as root in a guest, in an empty directory, with nothing but Python's standard library.
"""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import socket
import stat
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
USER = 1000


def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def outcome(function, *arguments, **options):
    """What a call gives, or its errno by name."""
    try:
        result = function(*arguments, **options)
    except OSError as error:
        return name_of(error)
    return "ok" if result is None else result


def call(function, *arguments):
    ctypes.set_errno(0)
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def link_open_file(file, path):
    call(LIBC.linkat, AT_FDCWD, f"/proc/self/fd/{file}".encode(), AT_FDCWD, path.encode(), 0x400)  # AT_SYMLINK_FOLLOW


def as_user(function, user=USER, group=None, groups=()):
    """What `function` gives in a process of another user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups(list(groups))
        os.setgid(user if group is None else group)
        os.setuid(user)
        os.write(writer, repr(outcome(function)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(child, 0)
    return answer


def write(path, content=b"", mode=0o644):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(file, content)
    os.close(file)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def touch(path, flags=0, mode=0o644):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | flags, mode))


def shown(path):
    found = os.lstat(path)
    return f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid} {found.st_nlink}"


def permissions():
    for mode in (0o000, 0o200, 0o400, 0o444, 0o600, 0o666, 0o777, 0o4755, 0o2755, 0o1644, 0o7777):
        path = f"mode-{mode:o}"
        write(path, b"x")
        os.chmod(path, mode)
        yield path, shown(path)
        yield f"{path} root reads", outcome(read, path)
        yield f"{path} root writes", outcome(touch, path)
        yield f"{path} user reads", as_user(lambda path=path: read(path))
        yield f"{path} user writes", as_user(lambda path=path: touch(path))
    for mode in (0o000, 0o100, 0o400, 0o555, 0o755, 0o1777):
        path = f"folder-{mode:o}"
        os.mkdir(path)
        write(f"{path}/file")
        os.chmod(path, mode)
        yield path, shown(path)
        yield f"{path} user lists", as_user(lambda path=path: sorted(os.listdir(path)))
        yield f"{path} user enters", as_user(lambda path=path: os.stat(f"{path}/file").st_size)
        yield f"{path} user makes", as_user(lambda path=path: touch(f"{path}/new"))
        yield f"{path} user removes", as_user(lambda path=path: os.unlink(f"{path}/file"))
    for mask in (0, 0o022, 0o077, 0o777):
        os.umask(mask)
        touch(f"mask-{mask:o}", mode=0o666)
        os.mkdir(f"mask-folder-{mask:o}", 0o777)
        yield f"umask {mask:o}", shown(f"mask-{mask:o}") + shown(f"mask-folder-{mask:o}")
    os.umask(0o022)


def owners():
    write("owned", b"content")
    os.chown("owned", USER, 2000)
    yield "chown", shown("owned")
    yield "owner's chmod", as_user(lambda: os.chmod("owned", 0o600))
    yield "owner's chown", as_user(lambda: os.chown("owned", 0, -1))
    yield "owner's chgrp to a group of his", as_user(lambda: os.chown("owned", -1, 3000), groups=[3000])
    yield "others' chmod", as_user(lambda: os.chmod("owned", 0o777), user=1001)
    yield "then", shown("owned")
    os.chmod("owned", 0o6755)
    os.chown("owned", 1001, 1001)
    yield "chown of a set-user-ID program", shown("owned")
    os.chmod("owned", 0o6777)
    yield "others write to it", as_user(lambda: os.write(os.open("owned", os.O_WRONLY), b"x"))
    yield "then it is none", shown("owned")
    os.chmod("owned", 0o6777)
    yield "others truncate it", as_user(lambda: os.truncate("owned", 3))
    yield "then it is none either", shown("owned")
    os.chmod("owned", 0o6777)
    touch("owned")
    os.truncate("owned", 2)
    yield "root truncates it", shown("owned")
    os.mkdir("shared-folder")
    os.chown("shared-folder", 0, 2000)
    os.chmod("shared-folder", 0o2777)
    touch("shared-folder/file")
    os.mkdir("shared-folder/folder")
    yield "set-group-ID folder", shown("shared-folder/file") + shown("shared-folder/folder")
    yield "user makes there", as_user(lambda: touch("shared-folder/program", mode=0o2755))
    yield "program of a foreign group", shown("shared-folder/program")
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    yield "user makes in sticky", as_user(lambda: touch("sticky/mine"))
    yield "others remove it", as_user(lambda: os.unlink("sticky/mine"), user=1001)
    yield "others rename it", as_user(lambda: os.rename("sticky/mine", "sticky/theirs"), user=1001)
    yield "the owner removes it", as_user(lambda: os.unlink("sticky/mine"))
    os.symlink("owned", "owned-link")
    os.lchown("owned-link", 7, 8)
    yield "a link's owner", shown("owned-link")
    yield "made by a user", as_user(lambda: os.mkdir("sticky/folder")) + shown("sticky/folder")


def renames():
    def rename2(old, new, flags):
        call(LIBC.renameat2, AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)

    for name in ("a", "b"):
        write(name, name.encode())
        os.mkdir(f"{name}-folder")
    write("a-folder/inside", b"inside")
    os.rename("a", "b")
    yield "over a file", read("b"), outcome(os.stat, "a")
    yield "file over folder", outcome(os.rename, "b", "b-folder")
    yield "folder over file", outcome(os.rename, "b-folder", "b")
    yield "folder over empty folder", outcome(os.rename, "a-folder", "b-folder"), os.listdir("b-folder")
    os.mkdir("c-folder")
    yield "folder over full folder", outcome(os.rename, "c-folder", "b-folder")
    yield "into itself", outcome(os.rename, "b-folder", "b-folder/below")
    yield "what is not there", outcome(os.rename, "none", "some")
    yield "to itself", outcome(os.rename, "b", "b"), read("b")
    os.link("b", "b-other")
    yield "to another name of it", outcome(os.rename, "b", "b-other"), sorted(os.listdir("."))
    os.unlink("b-other")
    write("x", b"x")
    yield "no replacing", outcome(rename2, "x", "b", 1), outcome(rename2, "x", "y", 1), read("y")
    yield "exchange", outcome(rename2, "y", "b-folder", 2), sorted(os.listdir("y")), read("b-folder")
    yield "exchange with nothing", outcome(rename2, "y", "none", 2)
    yield "unknown flags", outcome(rename2, "y", "z", 64)
    file = os.open("y/inside", os.O_RDONLY)
    os.rename("y", "z")
    os.rename("z/inside", "out")
    yield "an open file moves", os.fstat(file).st_ino == os.stat("out").st_ino, os.pread(file, 100, 0)
    os.close(file)
    here = os.open(".", os.O_RDONLY)
    os.chdir("z")
    os.rename("../z", "../zz")
    touch("made-here")
    os.fchdir(here)
    yield "in a folder that moves", os.listdir("zz")


def removed():
    write("gone", b"content")
    file = os.open("gone", os.O_RDWR)
    os.unlink("gone")
    yield "no name any more", outcome(os.stat, "gone"), os.fstat(file).st_nlink, os.fstat(file).st_size
    os.pwrite(file, b"more", 7)
    os.ftruncate(file, 9)
    os.fchmod(file, 0o600)
    yield "still there", os.pread(file, 100, 0), stat.filemode(os.fstat(file).st_mode)
    yield "link it back", outcome(link_open_file, file, "back")
    os.close(file)
    write("twice", b"1")
    os.link("twice", "again")
    os.unlink("twice")
    yield "the other name", shown("again"), read("again")
    os.mkdir("folder")
    folder = os.open("folder", os.O_RDONLY)
    os.rmdir("folder")
    yield "removed folder", os.listdir(folder), outcome(os.open, "new", os.O_CREAT, dir_fd=folder), os.fstat(folder).st_nlink
    os.close(folder)
    os.mkdir("full")
    touch("full/file")
    yield "rmdir of what is full", outcome(os.rmdir, "full")
    yield "rmdir of a file", outcome(os.rmdir, "full/file")
    yield "unlink of a folder", outcome(os.unlink, "full")
    yield "unlink of nothing", outcome(os.unlink, "none")
    file = os.open("replaced", os.O_RDWR | os.O_CREAT)
    os.write(file, b"old")
    write("new", b"new")
    os.rename("new", "replaced")
    yield "replaced while open", os.pread(file, 9, 0), read("replaced"), os.fstat(file).st_nlink
    os.close(file)
    unnamed = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(unnamed, b"unnamed")
    yield "unnamed", os.fstat(unnamed).st_nlink, stat.filemode(os.fstat(unnamed).st_mode)
    yield "named later", outcome(link_open_file, unnamed, "named"), read("named"), shown("named")
    os.close(unnamed)


def opening():
    write("file", b"0123456789")
    os.mkdir("folder")
    os.symlink("file", "link")
    os.symlink("none", "dangling")
    os.symlink("loop", "loop")
    yield "exclusive", outcome(touch, "file", os.O_EXCL), outcome(touch, "dangling", os.O_EXCL)
    yield "through a dangling link", outcome(touch, "dangling"), sorted(os.listdir("."))
    yield "not through links", outcome(os.open, "link", os.O_NOFOLLOW)
    yield "a loop", outcome(os.stat, "loop"), outcome(os.open, "loop", os.O_RDONLY)
    yield "a folder for writing", outcome(os.open, "folder", os.O_WRONLY)
    yield "a file as folder", outcome(os.open, "file", os.O_DIRECTORY), outcome(os.stat, "file/x"), outcome(os.listdir, "file")
    yield "truncated", outcome(touch, "file", os.O_TRUNC), os.stat("file").st_size
    yield "slash behind", outcome(os.stat, "file/"), outcome(os.mkdir, "slash/"), outcome(os.unlink, "slash/")
    yield "links", os.readlink("link"), outcome(os.readlink, "file"), outcome(os.symlink, "x", "link"), os.lstat("link").st_size
    target = "t" * 4095
    yield "long link", outcome(os.symlink, target, "long"), os.readlink("long") == target, outcome(os.symlink, target + "t", "longer")
    yield "hard links", outcome(os.link, "file", "hard"), shown("hard"), os.stat("hard").st_ino == os.stat("file").st_ino
    yield "hard link of a folder", outcome(os.link, "folder", "hard-folder")
    yield "hard link of a link", outcome(os.link, "link", "hard-link", follow_symlinks=False), stat.filemode(os.lstat("hard-link").st_mode)
    yield "hard link over a file", outcome(os.link, "file", "link")
    files = [os.open(f"many-{i}", os.O_CREAT | os.O_RDWR) for i in range(800)]
    for i, file in enumerate(files):
        os.write(file, str(i).encode())
    yield "many open files", sum(int(os.pread(file, 9, 0)) for file in files)
    for file in files:
        os.close(file)


def contents():
    yield "a far end", outcome(os.truncate, touch("far") or "far", 5 << 30), os.stat("far").st_size, os.stat("far").st_blocks
    file = os.open("far", os.O_RDWR)
    os.pwrite(file, b"end", (5 << 30) - 3)
    os.pwrite(file, b"middle", 1 << 30)
    yield "data", os.lseek(file, 0, os.SEEK_DATA), os.lseek(file, 1 << 30, os.SEEK_HOLE), os.lseek(file, 2 << 30, os.SEEK_DATA)
    yield "hole at the end", outcome(os.lseek, file, 6 << 30, os.SEEK_DATA), os.lseek(file, (5 << 30) - 1, os.SEEK_HOLE) == 5 << 30
    yield "far read", os.pread(file, 100, (5 << 30) - 3), os.pread(file, 4, 1 << 29)
    os.close(file)
    write("spots", bytes(range(256)) * 256)
    file = os.open("spots", os.O_RDWR)
    yield "punched", outcome(call, LIBC.fallocate, file, 3, ctypes.c_long(8192), ctypes.c_long(4096)), os.pread(file, 8, 8190)
    yield "kept", outcome(call, LIBC.fallocate, file, 1, ctypes.c_long(1 << 20), ctypes.c_long(4096)), os.fstat(file).st_size
    yield "extended", outcome(os.posix_fallocate, file, 0, 100_000), os.fstat(file).st_size
    yield "zeroed", outcome(call, LIBC.fallocate, file, 16, ctypes.c_long(100), ctypes.c_long(50)), os.pread(file, 4, 98)
    other = os.open("copy", os.O_RDWR | os.O_CREAT)
    yield "copied range", os.copy_file_range(file, other, 50_000, 0, 10), hashlib.md5(read("copy")).hexdigest()
    yield "copied to the end", os.copy_file_range(file, other, 1 << 20, 90_000, 0)
    os.lseek(file, 0, 0)
    yield "sent", os.sendfile(other, file, 0, 1000)
    os.ftruncate(file, 10)
    yield "shrunk", os.fstat(file).st_size, os.pread(file, 100, 5)
    os.ftruncate(file, 20)
    yield "grown", os.pread(file, 100, 5)
    yield "syncs", outcome(os.fsync, file), outcome(os.fdatasync, file), outcome(call, LIBC.syncfs, file)
    os.close(file)
    os.close(other)
    yield "not for writing", outcome(os.write, os.open("spots", os.O_RDONLY), b"x")
    yield "not for reading", outcome(os.read, os.open("spots", os.O_WRONLY), 1)
    big = os.urandom(1 << 20) * 5
    write("big", big)
    yield "large writes", hashlib.md5(read("big")).hexdigest() == hashlib.md5(big).hexdigest()
    pieces = [os.urandom(size) for size in (1, 4095, 4096, 4097, 131_071, 131_073, 1_048_577)]
    with open("pieces", "wb", buffering=0) as out:
        for piece in pieces:
            out.write(piece)
    yield "odd sizes", read("pieces") == b"".join(pieces)
    direct = os.open("big", os.O_RDWR | getattr(os, "O_DIRECT", 0))
    page = mmap.mmap(-1, 8192)
    yield "direct", os.readv(direct, [page]), page[:8192] == big[:8192]
    os.close(direct)


def mapped():
    write("mapped", bytes(10_000))
    with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 10_000) as memory:
        memory[100:105] = b"hello"
        memory.flush()
        yield "read behind a mapping", read("mapped")[98:107]
        os.pwrite(file.fileno(), b"world", 200)
        yield "mapping behind a write", memory[200:205]
        child = os.fork()
        if child == 0:
            memory[300:303] = b"kid"
            os._exit(0)
        os.waitpid(child, 0)
        yield "shared with a child", memory[300:303], os.pread(file.fileno(), 3, 300)
    with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE) as memory:
        memory[0:4] = b"mine"
        yield "private", read("mapped")[:4]


def appended():
    touch("log")
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            log = os.open("log", os.O_WRONLY | os.O_APPEND)
            for line in range(100):
                os.write(log, f"{number} {line}\n".encode())
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    lines = read("log").decode().splitlines()
    yield "lines", len(lines), all([line for line in lines if line[0] == str(n)] == [f"{n} {i}" for i in range(100)] for n in range(4))
    log = os.open("log", os.O_RDWR | os.O_APPEND)
    os.lseek(log, 0, 0)
    os.write(log, b"end")
    yield "wherever it stands", read("log")[-4:], os.lseek(log, 0, 1) == os.fstat(log).st_size
    os.close(log)


def times():
    write("timed", b"x")
    os.utime("timed", ns=(1_000_000_000_123_456_789, 2_000_000_000_987_654_321))
    found = os.stat("timed")
    yield "set", found.st_atime_ns, found.st_mtime_ns
    os.utime("timed", ns=(0, -5_000_000_000))
    yield "before 1970", os.stat("timed").st_mtime_ns
    before = os.stat("timed").st_ctime_ns
    write("timed", b"y")
    after = os.stat("timed")
    yield "written", after.st_mtime_ns > 1_000_000_000, after.st_ctime_ns >= before  # the clock of file systems ticks
    os.utime("timed", ns=(5, 5))
    os.chmod("timed", 0o600)
    yield "chmod leaves it", os.stat("timed").st_mtime_ns
    os.mkdir("timed-folder")
    os.utime("timed-folder", ns=(5, 5))
    touch("timed-folder/new")
    yield "a folder's", os.stat("timed-folder").st_mtime_ns > 5
    os.symlink("timed", "timed-link")
    os.utime("timed-link", ns=(7, 7), follow_symlinks=False)
    yield "a link's own", os.lstat("timed-link").st_mtime_ns, os.stat("timed").st_mtime_ns
    os.chmod("timed", 0o644)
    yield "a user's", as_user(lambda: os.utime("timed")), as_user(lambda: os.utime("timed", ns=(1, 1)))
    os.chmod("timed", 0o666)
    yield "a writer's", as_user(lambda: os.utime("timed")), as_user(lambda: os.utime("timed", ns=(1, 1)))


def names():
    odd = [b"n" * 255, b"\xff\xfe\x80", b"new\nline", b" ", b"-rf", b"...", b"\\", b"*", "\u00e4\u20ac\U0001f600".encode(), b"com1.", b"a:b"]
    for name in odd:
        write(name, name)
    yield "listed", sorted(os.listdir(b".")) == sorted(odd)
    yield "read", all(read(name) == name for name in odd)
    yield "too long", outcome(touch, b"n" * 256), outcome(os.stat, b"n" * 256), outcome(os.mkdir, b"n" * 256)
    yield "too long a path", outcome(os.stat, b"x/" * 2100)
    yield "cases differ", outcome(touch, "Name"), outcome(os.stat, "name")
    os.mkdir("deep")
    os.chdir("deep")
    for _ in range(200):
        os.mkdir("down")
        os.chdir("down")
    write("bottom", b"bottom")
    yield "deep down", read("bottom"), len(os.getcwd()) > 1000
    os.chdir("/".join([".."] * 201))
    os.mkdir("crowd")
    for number in range(1500):
        touch(f"crowd/{number}")
    seen = [entry.name for entry in os.scandir("crowd")]
    yield "a crowd", len(seen), len(set(seen))
    with os.scandir("crowd") as entries:
        for entry in entries:
            os.unlink(f"crowd/{entry.name}")
    yield "removed while listed", os.listdir("crowd")


def attributes():
    write("tagged", b"x")
    yield "none", outcome(os.getxattr, "tagged", "user.none"), os.listxattr("tagged")
    os.setxattr("tagged", "user.one", b"1")
    os.setxattr("tagged", "user.empty", b"")
    os.setxattr("tagged", "user.binary", bytes(range(256)))
    os.setxattr("tagged", "trusted.secret", b"root's")
    yield "listed", sorted(os.listxattr("tagged"))
    yield "got", os.getxattr("tagged", "user.one"), os.getxattr("tagged", "user.empty"), len(os.getxattr("tagged", "user.binary"))
    yield "trusted", os.getxattr("tagged", "trusted.secret"), as_user(lambda: os.getxattr("tagged", "trusted.secret"))
    yield "flags", outcome(os.setxattr, "tagged", "user.one", b"", os.XATTR_CREATE), outcome(os.setxattr, "tagged", "user.two", b"", os.XATTR_REPLACE)
    yield "removed", outcome(os.removexattr, "tagged", "user.one"), outcome(os.removexattr, "tagged", "user.one")
    yield "of a link", outcome(os.setxattr, os.symlink("tagged", "tag-link") or "tag-link", "user.x", b"", follow_symlinks=False)
    yield "a user's", as_user(lambda: os.setxattr("tagged", "user.x", b"")), as_user(lambda: os.getxattr("tagged", "user.empty"))
    yield "a long name", outcome(os.setxattr, "tagged", "user." + "n" * 240, b"1"), outcome(os.setxattr, "tagged", "user." + "n" * 251, b"")
    os.mkdir("tagged-folder")
    os.setxattr("tagged-folder", "user.folder", b"f")
    yield "of a folder", os.getxattr("tagged-folder", "user.folder")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    yield "capability", outcome(os.setxattr, "tagged", "security.capability", capability), os.getxattr("tagged", "security.capability").hex()
    os.chmod("tagged", 0o777)
    yield "a reader leaves it", read("tagged"), "security.capability" in os.listxattr("tagged")
    write("tagged", b"changed")
    yield "a writer takes it away", "security.capability" in os.listxattr("tagged")
    os.setxattr("tagged", "security.capability", capability)
    os.chown("tagged", 5, 5)
    yield "a new owner as well", "security.capability" in os.listxattr("tagged")


def special():
    os.mkfifo("fifo", 0o640)
    yield "fifo", shown("fifo")
    child = os.fork()
    if child == 0:
        write("fifo", b"through")
        os._exit(0)
    yield "through it", read("fifo")
    os.waitpid(child, 0)
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    yield "socket", stat.filemode(os.lstat("socket").st_mode), outcome(client.connect, "socket"), outcome(os.open, "socket", os.O_RDONLY)
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    found = os.stat("null")
    yield "device", shown("null"), os.major(found.st_rdev), os.minor(found.st_rdev)
    yield "it is the guest's", outcome(os.write, os.open("null", os.O_WRONLY), b"away"), read("null")
    os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(300, 70_000))
    yield "a large number", shown("block"), os.major(os.stat("block").st_rdev), os.minor(os.stat("block").st_rdev)
    os.rename("null", "zero")
    os.link("zero", "nil")
    yield "moved and linked", shown("zero"), read("nil")
    yield "not a user's", as_user(lambda: os.mknod("own", stat.S_IFCHR, os.makedev(1, 3)))
    for name in ("fifo", "socket", "zero", "nil", "block"):
        os.unlink(name)
    yield "all gone", os.listdir(".")


def locks():
    touch("locked")
    file = os.open("locked", os.O_RDWR)

    def other(function):
        """In a process of its own, with the file opened anew."""
        return as_user(lambda: function(os.open("locked", os.O_RDWR)), user=0)

    fcntl.flock(file, fcntl.LOCK_EX)
    yield "flock", other(lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)), other(lambda f: fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB))
    fcntl.flock(file, fcntl.LOCK_UN)
    yield "unlocked", other(lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB))
    fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
    yield "range", other(lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)), other(lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 15))
    waited = threading.Event()

    def wait_for_it():
        child = os.fork()
        if child == 0:
            own = os.open("locked", os.O_RDWR)
            fcntl.lockf(own, fcntl.LOCK_EX, 10, 5)
            os._exit(0)
        os.waitpid(child, 0)
        waited.set()

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    early = waited.wait(0.2)
    fcntl.lockf(file, fcntl.LOCK_UN)
    thread.join()
    yield "waited for", early, waited.is_set()
    os.close(file)


GROUPS = [permissions, owners, renames, removed, opening, contents, mapped, appended, times, names, attributes, special, locks]


def main():
    os.umask(0o022)
    os.chmod(sys.argv[1], 0o755)
    for group in GROUPS:
        folder = os.path.join(sys.argv[1], group.__name__)
        os.mkdir(folder)
        if group in (owners, times, attributes):
            os.chmod(folder, 0o777)
        os.chdir(folder)
        for what, *found in group():
            print(group.__name__, "|", what, "|", *(repr(each) for each in found), flush=True)
        os.chdir("/")


main()
