"""Models on disk: resolve a name, download, convert to a precision, verify, delete."""

# ruff: noqa: F401  names for other packages

from core.store.estimate import Estimate
from core.store.manifest import Manifest
from core.store.progress import Progress, Stage
from core.store.resolver import Source, SourceKind, resolve
from core.store.store import DiskUsage, ModelStore, StoredDownload
from core.store.stored import StoredModel
from core.store.subprocesses import convert_in_process, fetch_in_process
from core.store.tasks import TaskQueue, TaskRequest, TaskState, TaskView
