"""Errors whose text is shown to the user as it is.

Each text is one sentence that says what happened and one that says what to do. The tree::

    PaddockError                    a failure; the command line exits with 1
    ├── UserError               a mistake in the input; the command line exits with 2
    │   ├── UnknownModelError       no such catalogue key, Hugging Face id or local folder
    │   ├── UnknownDeviceError      OpenVINO does not report this device
    │   ├── BadRequestError         empty or too long instruction, or a setting out of range
    │   │   ├── OptionError         the model or its runtime cannot apply an option
    │   │   └── PromptTooLongError  the prompt leaves too little of the context length
    │   ├── PromptFormatError       the model has no chat template and no format was chosen
    │   ├── AccountInputError       invalid user name or password for an account
    │   │   └── InvitationError     the invitation code is invalid, used up or expired
    │   ├── UnknownAccountError     no account, session or invitation with this name or id
    │   ├── SignInError             incorrect user name or password, or a disabled account
    │   ├── TooManyAnswersError     the user has reached the limit of concurrent answers
    │   ├── TooManyAttemptsError    too many failed attempts; wait
    │   └── AccessDeniedError       the user lacks the permission
    ├── ModelFilesError             files on disk cannot be used as a model
    │   ├── CorruptModelError       a file is missing, truncated or altered
    │   └── NotAModelError          the folder or repository is not a causal language model
    ├── HubError                    the Hugging Face Hub is unreachable or returned an error
    │   └── GatedModelError         the licence must be accepted first
    ├── ResourceError               not enough memory, disk space or processor time
    │   ├── NotEnoughMemoryError    not enough free memory for the model
    │   ├── DiskFullError           not enough free disk space
    │   └── TooBusyError            too many passwords are being checked
    ├── RemoteError                 a remote server is unreachable or returned an error
    │   └── NoModelListError          it does not list its models, but may answer requests
    ├── ConversionError             export or weight compression failed
    ├── StoppedError                the user stopped a download or conversion
    ├── ModelBusyError              the model or its files are in use
    ├── ClusterError                a Ray cluster is unreachable or failed
    ├── GenerationError             the runtime failed during generation
    └── RecordsError                the database cannot be read or written
"""


class PaddockError(Exception):
    """Base class of all errors whose text is written for the user."""

    exit_code = 1


class UserError(PaddockError):
    """The request cannot be carried out as given; the text says what to change."""

    exit_code = 2


class UnknownModelError(UserError):
    """No catalogue key, Hugging Face id or local folder has this name."""


class UnknownDeviceError(UserError):
    """OpenVINO does not report this device on this machine."""


class BadRequestError(UserError):
    """The instruction or a setting is invalid; the text names it and its range."""


class PromptTooLongError(BadRequestError):
    """The prompt leaves too little of the model's context length for the answer."""


class OptionError(BadRequestError):
    """The model or its runtime cannot apply an option of the request."""

    def __init__(self, message: str, option: str = "") -> None:
        """
        Args:
            option: name of the option in the API.
        """
        super().__init__(message)
        self.option = option


class PromptFormatError(UserError):
    """The model has no chat template and the user has not chosen a prompt format."""


class AccountInputError(UserError):
    """A user name or password is not allowed; the text says what is."""


class InvitationError(AccountInputError):
    """The invitation code is invalid, used up or expired."""


class UnknownAccountError(UserError):
    """No account, session or invitation has this name or id."""


class SignInError(UserError):
    """User name and password do not match an account that may sign in.

    The text is the same for an unknown name and for an incorrect password.
    """


class TooManyAnswersError(UserError):
    """The user has reached the limit of running and waiting answers."""


class TooManyAttemptsError(UserError):
    """Too many attempts failed; the text says how long to wait."""


class AccessDeniedError(UserError):
    """The user lacks the permission, here or at all; the text says who has it."""


class ModelFilesError(PaddockError):
    """Files on disk cannot be used as a model."""


class CorruptModelError(ModelFilesError):
    """A model file is missing, truncated or differs from its manifest."""


class NotAModelError(ModelFilesError):
    """The folder or repository does not contain a supported causal language model."""


class HubError(PaddockError):
    """The Hugging Face Hub is unreachable or returned an error."""


class GatedModelError(HubError):
    """The Hugging Face Hub requires the licence to be accepted, or a token, for this model."""


class RemoteError(PaddockError):
    """A remote server is unreachable, rejected the request or violated the protocol."""


class NoModelListError(RemoteError):
    """The server is reachable but does not list its models."""


class ResourceError(PaddockError):
    """The machine lacks memory, disk space or processor time."""


class NotEnoughMemoryError(ResourceError):
    """The model does not fit into the free memory."""


class DiskFullError(ResourceError):
    """There is not enough free disk space."""


class TooBusyError(ResourceError):
    """More users sign in at the same time than passwords can be checked."""


class ConversionError(PaddockError):
    """Export to OpenVINO or weight compression failed."""


class StoppedError(PaddockError):
    """The user stopped a download or conversion; no partial result was kept as finished."""


class ModelBusyError(PaddockError):
    """The model or its files are in use."""


class ClusterError(PaddockError):
    """A Ray cluster is unreachable or could not carry out the request."""


class GenerationError(PaddockError):
    """The runtime failed during generation."""


class RecordsError(PaddockError):
    """The database cannot be read or written; answers continue without being recorded."""
