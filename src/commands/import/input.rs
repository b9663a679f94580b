//! The file: found, opened, and read with a bound on everything that one thing in it may cost.
//!
//! What a file is, is told by its first bytes and not by its name. Of a zip only the export itself is read, as a stream;
//! nothing is written to disk, so a name in it can point nowhere.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zip::ZipArchive;

use super::Failure;

/// How often its packed size a file in a zip may unpack to; a real export is at about 30.
const RATIO_MAX: u64 = 200;
/// The folder of Apple's zip.
const FOLDER: &str = "apple_health_export/";
const BUFFER_BYTES: usize = 256 * 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Apple's `export.xml`.
    Xml,
    /// A push of ours, or of Health Auto Export.
    Json,
}

/// How far the reader is, for who shows it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes read, unpacked.
    pub(super) read: AtomicU64,
    /// Bytes there are, unpacked, as far as the file says.
    pub(super) total: AtomicU64,
}

/// A reader that knows where it is and lets nothing grow without bound.
pub(super) struct Input<R> {
    inner: R,
    progress: Arc<Progress>,
    read: u64,
    lines: u64,
    /// What the file may unpack to.
    most: u64,
    /// What the thing that is being read may still take.
    left: usize,
}

impl<R: BufRead> Input<R> {
    pub(super) fn new(inner: R, progress: Arc<Progress>, most: u64) -> Self {
        Self { inner, progress, read: 0, lines: 0, most, left: usize::MAX }
    }

    /// The next thing may take so many bytes.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.left = bytes;
    }

    /// What is wrong here.
    pub(super) fn failure(&self, why: &'static str) -> Failure {
        Failure::File { why, line: self.lines.saturating_add(1), byte: self.read }
    }

    /// What it means that reading failed.
    pub(super) fn unread(&self, kind: ErrorKind) -> Failure {
        match kind {
            ErrorKind::FileTooLarge => self.failure("more in one place than is read"),
            ErrorKind::QuotaExceeded => self.failure("it unpacks to more than it says"),
            ErrorKind::UnexpectedEof => self.failure("the file ends early"),
            ErrorKind::InvalidData => self.failure("it does not unpack to what was packed"),
            kind => Failure::System { doing: "read the file", kind },
        }
    }
}

impl<R: BufRead> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(into.len());
        if let (Some(from), Some(into)) = (from.get(..count), into.get_mut(..count)) {
            into.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        if !buffer.is_empty() && self.read >= self.most {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        if !buffer.is_empty() && self.left == 0 {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let most = usize::try_from(self.most.saturating_sub(self.read)).unwrap_or(usize::MAX);
        Ok(buffer.get(..buffer.len().min(self.left).min(most)).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        // What is consumed stands in the buffer, so asking for it again reads nothing.
        if count > 0
            && let Ok(buffer) = self.inner.fill_buf()
        {
            let lines = buffer.iter().take(count).filter(|byte| **byte == b'\n').count();
            self.lines = self.lines.saturating_add(u64::try_from(lines).unwrap_or(0));
        }
        self.inner.consume(count);
        self.left = self.left.saturating_sub(count);
        self.read = self.read.saturating_add(u64::try_from(count).unwrap_or(0));
        self.progress.read.store(self.read, Ordering::Relaxed);
    }
}

/// Who reads what a file is.
pub(super) type With<'w> =
    &'w mut dyn FnMut(Format, Input<&mut dyn BufRead>) -> Result<(), Failure>;

/// Opens a file and hands what is to be read of it to `with`.
///
/// # Errors
/// Where it cannot be opened, is none of ours, or `with` fails.
pub(super) fn open(path: &Path, progress: &Arc<Progress>, with: With<'_>) -> Result<(), Failure> {
    let system = |doing| move |error: io::Error| Failure::System { doing, kind: error.kind() };
    let file = File::open(path).map_err(system("open the file"))?;
    let bytes = file.metadata().map_err(system("open the file"))?.len();
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let start = file.fill_buf().map_err(system("read the file"))?;
    if start.starts_with(b"PK") {
        return zipped(file, progress, with);
    }
    let format = format(start)?;
    progress.total.store(bytes, Ordering::Relaxed);
    with(format, Input::new(&mut file, Arc::clone(progress), u64::MAX))
}

/// What a text is by its first bytes.
fn format(start: &[u8]) -> Result<Format, Failure> {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'<') => Ok(Format::Xml),
        Some(b'{') => Ok(Format::Json),
        _ => Err(Failure::File {
            why: "not an export of Apple Health, a zip of one, or a JSON of Health Auto Export",
            line: 1,
            byte: 0,
        }),
    }
}

fn zipped(file: BufReader<File>, progress: &Arc<Progress>, with: With<'_>) -> Result<(), Failure> {
    let bad = |why| Failure::File { why, line: 1, byte: 0 };
    let mut archive = ZipArchive::new(file).map_err(|_| bad("a zip that cannot be read"))?;
    let index = export_of(&archive)
        .ok_or_else(|| bad("a zip without one apple_health_export/export.xml"))?;
    let entry = archive.by_index(index).map_err(|_| bad("a zip that cannot be unpacked"))?;
    let (packed, unpacked) = (entry.compressed_size(), entry.size());
    if unpacked > packed.saturating_mul(RATIO_MAX) {
        return Err(bad("a zip that would unpack to far more than an export does"));
    }
    progress.total.store(unpacked, Ordering::Relaxed);
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, entry);
    let format = format(reader.fill_buf().map_err(|_| bad("a zip that cannot be unpacked"))?)?;
    if format != Format::Xml {
        return Err(bad("a zip whose export is no XML"));
    }
    // What it says about itself is not believed: it is held to it.
    with(format, Input::new(&mut reader, Arc::clone(progress), unpacked))
}

/// The place of the export in a zip: `export.xml`, or the only other XML of its folder, because the name is in the
/// phone's language. The clinical document beside it (`export_cda.xml`) is none.
fn export_of<R: Read + io::Seek>(archive: &ZipArchive<R>) -> Option<usize> {
    let mut candidates = Vec::new();
    for index in 0..archive.len() {
        let Some(Ok(name)) = archive.name_for_index(index) else { continue };
        let Some(name) = name.strip_prefix(FOLDER) else { continue };
        if name == "export.xml" {
            return Some(index);
        }
        let lower = name.to_lowercase();
        if lower.ends_with(".xml") && !lower.contains('/') && !lower.contains("_cda") {
            candidates.push(index);
        }
    }
    match candidates.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &str, most: u64) -> Input<&[u8]> {
        Input::new(text.as_bytes(), Arc::default(), most)
    }

    #[test]
    fn it_knows_where_it_is() {
        let mut input = input("ab\ncd\nef", u64::MAX);
        let mut read = [0; 4];
        assert_eq!(input.read(&mut read).expect("bytes"), 4);
        let Failure::File { line, byte, .. } = input.failure("x") else { panic!("a file") };
        assert_eq!((line, byte), (2, 4));
        assert_eq!(input.progress.read.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn nothing_takes_more_than_it_may() {
        let read = |mut input: Input<&[u8]>| {
            let mut all = Vec::new();
            input.read_to_end(&mut all).map(|_| all.len()).map_err(|error| error.kind())
        };
        let mut bounded = input("0123456789", u64::MAX);
        bounded.allow(9);
        assert_eq!(read(bounded), Err(ErrorKind::FileTooLarge));
        let mut bounded = input("0123456789", u64::MAX);
        bounded.allow(10);
        assert_eq!(read(bounded), Ok(10), "the bound itself is no more");
        assert_eq!(read(input("0123456789", 9)), Err(ErrorKind::QuotaExceeded));
        assert_eq!(read(input("0123456789", 10)), Ok(10));
    }

    #[test]
    fn a_file_is_told_by_its_first_bytes() {
        assert_eq!(format(b"\xef\xbb\xbf <?xml").ok(), Some(Format::Xml));
        assert_eq!(format(b"\n{").ok(), Some(Format::Json));
        for other in [b"".as_slice(), b"[1]", b"   ", b"\x1f\x8b"] {
            assert!(format(other).is_err());
        }
    }
}
