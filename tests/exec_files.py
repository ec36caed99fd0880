# SPDX-License-Identifier: Apache-2.0
"""The file service of the exec protocol (docs/exec-protocol.md)."""

import os
import struct

from exec_connection import Requests
from exec_frames import DATA_MAX, END, LEAVE, Entry, FileFlag, ProtocolError, Type, done_value, done_without_value, strings


class Files(Requests):
    """A file service connection. All paths are the guest's, and absolute."""

    def __init__(self, connection):
        super().__init__(connection)
        done_without_value(self.request(Type.FILES))

    def send_request(self, kind, *paths, flags=0, mode=0, user=0, group=0, offset=0, length=0):
        fixed = struct.pack("<4I2Q", flags, mode, user, group, offset, length)
        self.send(kind, fixed + strings(*paths))

    def do(self, kind, *paths, **fields):
        """A request that DONE alone answers."""
        self.send_request(kind, *paths, **fields)
        return done_value(self.answer(Type.DONE))

    def entries(self, kind, path, **fields):
        self.send_request(kind, path, **fields)
        found = []
        while True:
            frame = self.answer(Type.FILE_ENTRY, Type.DONE)
            if frame.type == Type.DONE:
                return found, done_value(frame)
            found.append(Entry.parse(frame.payload))

    def counted_entries(self, kind, path, **fields):
        found, count = self.entries(kind, path, **fields)
        if count != len(found):
            raise ProtocolError(f"DONE says {count} after {len(found)} ENTRY")
        return found

    def data(self, kind, path, **fields):
        """All DATA, and the value of DONE."""
        self.send_request(kind, path, **fields)
        data = bytearray()
        while True:
            frame = self.answer(Type.FILE_DATA, Type.DONE)
            if frame.type == Type.DONE:
                return bytes(data), done_value(frame)
            data += frame.payload

    def send_data(self, data):
        for at in range(0, len(data), DATA_MAX):
            self.send(Type.FILE_DATA, data[at:at + DATA_MAX])

    def end_data(self):
        """The empty DATA. Returns the value of DONE."""
        self.send(Type.FILE_DATA)
        return done_value(self.answer(Type.DONE))

    def stat(self, path, follow=False):
        found, value = self.entries(Type.FILE_STAT, path, flags=FileFlag.FOLLOW if follow else 0)
        done_without_value(value)
        if len(found) != 1 or found[0].name != os.fsdecode(path):
            raise ProtocolError(f"STAT of {path} answered by {found}")
        return found[0]

    def list(self, path):
        return self.counted_entries(Type.FILE_LIST, path)

    def walk(self, path, levels=0):
        return self.counted_entries(Type.FILE_WALK, path, length=levels)

    def diff(self):
        return {entry.name: entry.change for entry in self.counted_entries(Type.FILE_DIFF, "/")}

    def read(self, path, offset=0, length=END):
        data, count = self.data(Type.FILE_READ, path, offset=offset, length=length)
        if count != len(data) or count > length:
            raise ProtocolError(f"READ of at most {length} bytes: DONE says {count} after {len(data)}")
        return data

    def begin_write(self, path, flags=0, mode=0o644, user=LEAVE, group=LEAVE, offset=0):
        """To be followed by send_data() and end_data()."""
        self.send_request(Type.FILE_WRITE, path, flags=flags, mode=mode, user=user, group=group, offset=offset)

    def write(self, path, data, **fields):
        self.begin_write(path, **fields)
        self.send_data(data)
        count = self.end_data()
        if count != len(data):
            raise ProtocolError(f"WRITE of {len(data)} bytes: DONE says {count}")

    def mkdir(self, path, mode=0o755, user=LEAVE, group=LEAVE, parents=False):
        flags = FileFlag.PARENTS if parents else 0
        done_without_value(self.do(Type.FILE_MKDIR, path, flags=flags, mode=mode, user=user, group=group))

    def remove(self, path, recursive=False, missing_ok=False):
        flags = (FileFlag.RECURSIVE if recursive else 0) | (FileFlag.MISSING_OK if missing_ok else 0)
        done_without_value(self.do(Type.FILE_REMOVE, path, flags=flags))

    def rename(self, path, new_path, exclusive=False):
        done_without_value(self.do(Type.FILE_RENAME, path, new_path, flags=FileFlag.EXCLUSIVE if exclusive else 0))

    def chmod(self, path, mode, recursive=False):
        done_without_value(self.do(Type.FILE_CHMOD, path, mode=mode, flags=FileFlag.RECURSIVE if recursive else 0))

    def chown(self, path, user=LEAVE, group=LEAVE, follow=False, recursive=False):
        flags = (FileFlag.FOLLOW if follow else 0) | (FileFlag.RECURSIVE if recursive else 0)
        done_without_value(self.do(Type.FILE_CHOWN, path, user=user, group=group, flags=flags))

    def symlink(self, target, path, user=LEAVE, group=LEAVE):
        done_without_value(self.do(Type.FILE_SYMLINK, target, path, user=user, group=group))

    def readlink(self, path):
        data, value = self.data(Type.FILE_READLINK, path)
        done_without_value(value)
        return os.fsdecode(data)

    def pack(self, path):
        """A tar stream, and how many entries it has."""
        return self.data(Type.FILE_PACK, path)

    def begin_unpack(self, path, user=LEAVE, group=LEAVE, parents=False, sync=False):
        """To be followed by send_data() and end_data()."""
        flags = (FileFlag.PARENTS if parents else 0) | (FileFlag.SYNC if sync else 0)
        self.send_request(Type.FILE_UNPACK, path, flags=flags, user=user, group=group)

    def unpack(self, path, stream, **fields):
        """Returns how many entries the tar stream had."""
        self.begin_unpack(path, **fields)
        self.send_data(stream)
        return self.end_data()
