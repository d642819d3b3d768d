"""Everything that can go wrong in a way a person can act on.

The text of each of these errors is shown to the person as it is: one sentence that says what
happened and what to do. The tree::

    PaddockError                    a failure; the command line exits with 1
    ├── PersonMistake               what was asked cannot be done; the command line exits with 2
    │   ├── UnknownModelError       no such key, id or folder
    │   ├── UnknownDeviceError      the device is not one that OpenVINO reports
    │   ├── BadRequestError         empty or over-long instruction, a setting out of range
    │   │   └── PromptTooLongError  prompt and new tokens do not fit the model's positions
    │   ├── PromptFormatError       the model has no chat template and no format was chosen
    │   ├── AccountInputError       a name or a password that an account cannot have
    │   │   └── InvitationError     the invitation code does not hold (any more)
    │   ├── UnknownAccountError     no account, session or invitation of that name or id
    │   ├── SignInError             name and password are not those of an account that may sign in
    │   ├── TooManyAnswersError     one person asks for more answers at once than they may
    │   ├── TooManyAttemptsError    too many failures within a while; wait
    │   └── AccessDeniedError       this person may not do this here
    ├── ModelFilesError             what lies on disk cannot be used
    │   ├── CorruptModelError       a file is missing, truncated or altered
    │   └── NotAModelError          the folder or repository is not a causal language model
    ├── HubError                    the model hub cannot be reached or refused
    │   └── GatedModelError         the licence must be accepted first
    ├── ResourceError               the machine has too little of something
    │   ├── NotEnoughMemoryError
    │   ├── DiskFullError
    │   └── TooBusyError            more passwords wait to be checked than can be in time
    ├── RemoteError                 a remote server cannot be reached, refused or spoke nonsense
    │   └── NoListingError          it does not tell its models; they can be asked all the same
    ├── ConversionError             export or weight compression failed
    ├── StoppedError                the person stopped a download or a conversion
    ├── ModelBusyError              the model or its files are in use
    ├── ClusterError                a cluster cannot be reached, or fails
    ├── GenerationError             the runtime failed while it answered
    └── RecordsError                the run database cannot be read or written
"""


class PaddockError(Exception):
    """Base of all errors whose text is meant for the person."""

    exit_code = 1


class PersonMistake(PaddockError):
    """What was asked for cannot be done as asked; the text says what to change."""

    exit_code = 2


class UnknownModelError(PersonMistake):
    """No catalogue key, Hugging Face id or local folder of that name."""


class UnknownDeviceError(PersonMistake):
    """OpenVINO does not report this device on this machine."""


class BadRequestError(PersonMistake):
    """The instruction or a setting cannot be used; the text names it and its range."""


class PromptTooLongError(BadRequestError):
    """Prompt tokens plus new tokens exceed the positions the model was built for."""


class PromptFormatError(PersonMistake):
    """The model has no chat template and the person has not chosen a prompt format."""


class AccountInputError(PersonMistake):
    """A name or a password cannot be taken; the text says what can."""


class InvitationError(AccountInputError):
    """The invitation code does not hold, or does not any more."""


class UnknownAccountError(PersonMistake):
    """There is no account, session or invitation of that name or id."""


class SignInError(PersonMistake):
    """Name and password are not those of an account that may sign in.

    The text is the same for an unknown name and for a wrong password.
    """


class TooManyAnswersError(PersonMistake):
    """A person has as many answers under way and waiting as they may have."""


class TooManyAttemptsError(PersonMistake):
    """Too many attempts failed within a while; the text says how long to wait."""


class AccessDeniedError(PersonMistake):
    """The person may not do this, or not from here; the text says who may."""


class ModelFilesError(PaddockError):
    """What lies on disk cannot be used as a model."""


class CorruptModelError(ModelFilesError):
    """A model file is missing, truncated or not what its manifest says."""


class NotAModelError(ModelFilesError):
    """The folder or repository does not hold a causal language model we can read."""


class HubError(PaddockError):
    """The model hub could not be reached, or answered with an error."""


class GatedModelError(HubError):
    """The hub wants its licence accepted, or a token, before it hands the model out."""


class RemoteError(PaddockError):
    """A remote server cannot be reached, refused what was asked, or did not keep the protocol."""


class NoListingError(RemoteError):
    """The server is there and does not tell which models it has."""


class ResourceError(PaddockError):
    """The machine has too little of something."""


class NotEnoughMemoryError(ResourceError):
    """The model does not fit the free memory."""


class DiskFullError(ResourceError):
    """The disk has too little free space."""


class TooBusyError(ResourceError):
    """More people sign in at once than passwords can be checked in time."""


class ConversionError(PaddockError):
    """Export to OpenVINO or weight compression failed."""


class StoppedError(PaddockError):
    """The person stopped a download or a conversion; nothing that looks finished was kept."""


class ModelBusyError(PaddockError):
    """The model, or the files of it, are in use by somebody else."""


class ClusterError(PaddockError):
    """A Ray cluster cannot be reached, or cannot do what was asked of it."""


class GenerationError(PaddockError):
    """The runtime failed while it answered."""


class RecordsError(PaddockError):
    """The run database cannot be read or written; an answer goes on without it."""
