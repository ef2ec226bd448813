"""What W&B keeps of a run offline, read back from its own file."""

import json
import struct
import time

from wandb.proto import wandb_internal_pb2

BLOCK = 32768


def without_key(patch, home):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(home))
    patch.setenv("WANDB_DATA_DIR", str(home))
    patch.setenv("WANDB_CACHE_DIR", str(home))


def records(path):
    """W&B's file is a LevelDB log: fragments (crc, length, kind) that end at each 32 KiB block."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + length > len(data):  # still being written
            return
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


class Kept:
    """A run that has ended, by kind of record."""

    def __init__(self, folder):
        (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        self.records = whole(path)
        self.media = path.parent / "files" / "media"
        (self.run,) = self.of("run")
        self.rows = [items(record.item) for record in self.of("history")]
        self.summary = {}
        for record in self.of("summary"):
            for key, value in items(record.update).items():
                parts = value if isinstance(value, dict) else {}
                self.summary |= {key: value} | {f"{key}.{k}": v for k, v in parts.items()}

    def of(self, kind):
        return [getattr(r, kind) for r in self.records if r.WhichOneof("record_type") == kind]

    @property
    def config(self):
        """Nested, as it was given."""
        found = {}
        for update in [self.run.config, *self.of("config")]:
            found |= items(update.update)
        return found

    @property
    def history(self):
        """Every key that any row holds."""
        return {key for row in self.rows for key in row}


def whole(path, seconds=30):
    """All records: the last ones may come a moment after the run was ended."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{path} has no end")


def items(found):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in found}
