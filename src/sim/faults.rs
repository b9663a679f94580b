//! The calls that a worker makes on the world, and all that can go wrong with one.
//!
//! A worker between two calls is memory and nothing else, so the places where it can die are its calls: before the
//! effect, after it, and while nobody can tell. [`Seam`]s give names to the places where two systems can then
//! disagree; the crash sweep goes through all of them at every occurrence.

/// A call of a port: a place where the driver chooses what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// `Publisher::open`: init_transactions.
    Open,
    /// `Store::fence`.
    Fence,
    /// `Log::committed`.
    Committed,
    /// `Log::bounds`.
    Bounds,
    /// `Log::seek`.
    Seek,
    /// `Store::count_try`.
    CountTry,
    /// `Store::load`.
    Load,
    /// `Store::apply`.
    Apply,
    /// `Publisher::send`, the first half of its records.
    Send,
    /// `Publisher::send`, what is left.
    SendRest,
    /// `Publisher::send_offsets`.
    SendOffsets,
    /// `Publisher::commit`.
    Commit,
    /// `Publisher::abort`.
    Abort,
    /// `Cache::show`.
    Show,
    /// `Store::latest`.
    Latest,
    /// `Store::look`.
    Look,
    /// `Store::release`.
    Release,
    /// `Log::wait`.
    Wait,
    /// `Clock::sleep`.
    Sleep,
    /// `Log::commit`, outside of transactions.
    CommitPlain,
    /// `Register::connections`.
    Connections,
    /// `Register::note`.
    Note,
    /// `Register::connected`.
    Connected,
    /// `Register::put_through`.
    PutThrough,
    /// `Reader::read`.
    Read,
    /// `Sender::send`.
    Produce,
}

impl Call {
    /// What can go wrong with it, other than a crash.
    #[must_use]
    pub const fn faults(self) -> &'static [Grant] {
        match self {
            Self::Apply => &[Grant::Refused, Grant::AnswerLost, Grant::InDoubt],
            Self::SendOffsets => &[Grant::Refused, Grant::AnswerLost, Grant::Repeated],
            Self::Commit => &[
                Grant::Refused,
                Grant::AnswerLost,
                Grant::InDoubt,
                Grant::Retriable,
                Grant::Repeated,
            ],
            Self::Abort => &[Grant::Refused, Grant::AnswerLost, Grant::Repeated],
            Self::Fence | Self::CountTry | Self::Produce | Self::Note | Self::CommitPlain => {
                &[Grant::Refused, Grant::AnswerLost]
            }
            Self::Send | Self::SendRest | Self::Open => &[Grant::Refused, Grant::AnswerLost],
            Self::Committed
            | Self::Bounds
            | Self::Seek
            | Self::Load
            | Self::Show
            | Self::Latest
            | Self::Look
            | Self::Release
            | Self::Connections
            | Self::Connected
            | Self::PutThrough
            | Self::Read => &[Grant::Refused],
            Self::Wait | Self::Sleep => &[],
        }
    }

    /// Whether a worker that does only this has nothing to do.
    #[must_use]
    pub const fn is_idle(self) -> bool {
        matches!(self, Self::Wait | Self::Look | Self::Connected)
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// It happens and the answer arrives.
    Done,
    /// It does not happen, and the caller is told so.
    Refused,
    /// It happens; the caller is told only that it does not know.
    AnswerLost,
    /// The request is under way; it happens later or never, and the caller does not know.
    InDoubt,
    /// It happens; the caller is told to call it again.
    Retriable,
    /// It happens and the answer arrives, after a disturbance: the library has sent it twice, and the copy is still
    /// under way (H9).
    Repeated,
    /// As [`Grant::Repeated`], and no event of the client betrays it: the stated limit (`exactly_once.md` §4.2).
    RepeatedUnseen,
}

/// A place where two systems can disagree: a call, what became of it, and whether the worker died there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seam {
    /// Its name in traces and reports.
    pub name: &'static str,
    /// The call.
    pub call: Call,
    /// What became of it; absent: the worker died before it.
    pub grant: Option<Grant>,
    /// Whether the worker dies there; else it lives on with what it was told.
    pub dies: bool,
}

const fn dies(name: &'static str, call: Call, grant: Option<Grant>) -> Seam {
    Seam { name, call, grant, dies: true }
}

const fn lives(name: &'static str, call: Call, grant: Grant) -> Seam {
    Seam { name, call, grant: Some(grant), dies: false }
}

/// Dies with a producer that is just open.
pub const AFTER_OPEN: Seam = dies("after open", Call::Open, Some(Grant::Done));
/// Dies before the fence is taken.
pub const BEFORE_FENCE: Seam = dies("before fence", Call::Fence, None);
/// Dies with the fence just taken.
pub const AFTER_FENCE: Seam = dies("after fence", Call::Fence, Some(Grant::Done));
/// Dies before it goes to its first record.
pub const BEFORE_SEEK: Seam = dies("before seek", Call::Seek, None);
/// Dies before the load.
pub const BEFORE_LOAD: Seam = dies("before load", Call::Load, None);
/// Dies with a decision that nobody has.
pub const BEFORE_APPLY: Seam = dies("before apply", Call::Apply, None);
/// Dies with its COMMIT under way.
pub const APPLY_IN_DOUBT: Seam = dies("apply in doubt", Call::Apply, Some(Grant::InDoubt));
/// Dies when Postgres has it and Kafka nothing.
pub const AFTER_APPLY: Seam = dies("after apply", Call::Apply, Some(Grant::Done));
/// Dies with half of the records in an open transaction.
pub const MID_PUBLISH: Seam = dies("mid publish", Call::Send, Some(Grant::Done));
/// Dies with all records in an open transaction.
pub const AFTER_PUBLISH: Seam = dies("after publish", Call::SendRest, Some(Grant::Done));
/// Dies with records and offsets in an open transaction.
pub const AFTER_OFFSETS: Seam = dies("after offsets", Call::SendOffsets, Some(Grant::Done));
/// Dies with the EndTxn under way.
pub const COMMIT_UNKNOWN: Seam = dies("commit unknown", Call::Commit, Some(Grant::InDoubt));
/// Dies when all have it.
pub const AFTER_COMMIT: Seam = dies("after commit", Call::Commit, Some(Grant::Done));
/// Dies before the cache.
pub const BEFORE_CACHE: Seam = dies("before cache", Call::Show, None);
/// Dies after the cache.
pub const AFTER_CACHE: Seam = dies("after cache", Call::Show, Some(Grant::Done));

/// Every seam at which the worker dies, and every answer that it can get.
pub const SEAMS: [Seam; 33] = [
    AFTER_OPEN,
    BEFORE_FENCE,
    AFTER_FENCE,
    BEFORE_SEEK,
    BEFORE_LOAD,
    BEFORE_APPLY,
    APPLY_IN_DOUBT,
    AFTER_APPLY,
    MID_PUBLISH,
    AFTER_PUBLISH,
    AFTER_OFFSETS,
    COMMIT_UNKNOWN,
    AFTER_COMMIT,
    BEFORE_CACHE,
    AFTER_CACHE,
    lives("open refused", Call::Open, Grant::Refused),
    lives("fence refused", Call::Fence, Grant::Refused),
    lives("fence's answer lost", Call::Fence, Grant::AnswerLost),
    lives("committed refused", Call::Committed, Grant::Refused),
    lives("load refused", Call::Load, Grant::Refused),
    lives("apply refused", Call::Apply, Grant::Refused),
    lives("apply's answer lost", Call::Apply, Grant::AnswerLost),
    lives("apply in doubt, lives", Call::Apply, Grant::InDoubt),
    lives("send refused", Call::Send, Grant::Refused),
    lives("rest refused", Call::SendRest, Grant::AnswerLost),
    lives("offsets refused", Call::SendOffsets, Grant::Refused),
    lives("offsets' answer lost", Call::SendOffsets, Grant::AnswerLost),
    lives("commit refused", Call::Commit, Grant::Refused),
    lives("commit's answer lost", Call::Commit, Grant::AnswerLost),
    lives("commit in doubt, lives", Call::Commit, Grant::InDoubt),
    lives("commit retriable", Call::Commit, Grant::Retriable),
    lives("commit repeated", Call::Commit, Grant::Repeated),
    lives("cache refused", Call::Show, Grant::Refused),
];
