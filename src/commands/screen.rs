//! A picture that moves on a terminal, by ANSI sequences alone.
//!
//! It is drawn on the alternate screen, each row at its place and the last row first. So neither the height nor the
//! width needs to be known: rows below the terminal's end all land on its last row, where the one that belongs there
//! is written last; a row that is too long is cut, because wrapping is off. A resize is mended by the next picture.
//! Whatever ends it, the terminal is given back as it was, with the last picture below what stood there.

use std::io::{self, IsTerminal, Write};

use comfy_table::Table;

/// To the alternate screen, no cursor, no wrapping; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How wide a picture is where nothing says how wide the terminal is.
const WIDTH: usize = 100;

/// A terminal while a picture moves on it. It is given back when this is dropped.
#[derive(Debug)]
pub struct Screen<W: Write> {
    out: W,
    last: Vec<String>,
    is_entered: bool,
}

impl<W: Write> Screen<W> {
    /// A screen on this terminal; nothing is written yet.
    pub const fn new(out: W) -> Self {
        Self { out, last: Vec::new(), is_entered: false }
    }

    /// Draws a picture over the one before.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn draw(&mut self, lines: Vec<String>) -> io::Result<()> {
        let mut text = String::new();
        if !self.is_entered {
            text.push_str(ENTER);
            self.is_entered = true;
        }
        text.push_str(&format!("\x1b[{};1H\x1b[J", lines.len() + 1));
        for (at, line) in lines.iter().enumerate().rev() {
            text.push_str(&format!("\x1b[{};1H{line}\x1b[K", at + 1));
        }
        self.last = lines;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Writes a text to what the terminal keeps, above the pictures to come.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn above(&mut self, text: &str) -> io::Result<()> {
        self.last.clear();
        self.leave()?;
        self.print(text)
    }

    /// Writes a line where no picture moves.
    ///
    /// # Errors
    /// Where the reader is gone.
    pub fn print(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Gives the terminal back, with the last picture on it. A later picture takes it again.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn leave(&mut self) -> io::Result<()> {
        if !self.is_entered {
            return Ok(());
        }
        self.is_entered = false;
        let mut text = LEAVE.to_owned();
        for line in std::mem::take(&mut self.last) {
            text.push_str(&line);
            text.push('\n');
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        drop(self.leave());
    }
}

/// Where a picture would be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

impl Onto {
    /// Whether a picture can move there.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        let is = match self {
            Self::Out => io::stdout().is_terminal(),
            Self::Error => io::stderr().is_terminal(),
        };
        is && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Whether it may have colours: on a terminal, unless `NO_COLOR` is set (no-color.org).
    #[must_use]
    pub fn has_colours(self) -> bool {
        self.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
    }

    /// How wide it is now, columns.
    #[must_use]
    pub fn width(self) -> usize {
        // Only to measure: it is the one thing here that asks the terminal.
        let mut ruler = Table::new();
        if self == Self::Error {
            ruler.use_stderr();
        }
        ruler.width().map_or(WIDTH, usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    /// What a terminal of this height shows after these sequences, and whether it is the alternate screen's.
    fn shown(text: &str, height: usize) -> (Vec<String>, bool) {
        let mut rows = vec![String::new(); height];
        let (mut at, mut alternate) = (0, false);
        for part in text.split('\x1b').skip(1) {
            let end = part.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence");
            let (code, rest) = part.split_at(end + 1);
            match code {
                "[?1049h" => alternate = true,
                "[?1049l" => alternate = false,
                "[J" => rows.iter_mut().skip(at).for_each(String::clear),
                _ if code.ends_with('H') => {
                    let row = code.strip_prefix('[').and_then(|code| code.strip_suffix(";1H"));
                    let row: usize = row.expect("a place").parse().expect("a row");
                    at = row.min(height) - 1;
                }
                _ => {}
            }
            if code.ends_with('H') {
                rows[at] = rest.to_owned();
            }
        }
        (rows, alternate)
    }

    #[test]
    fn a_picture_that_is_too_high_is_cut_below() {
        let mut written = Vec::new();
        let mut screen = Screen::new(&mut written);
        screen.draw(lines("a\nb\nc\nd")).expect("drawn");
        drop(screen);
        let text = String::from_utf8(written).expect("text");
        let (picture, _) = text.split_once(LEAVE).expect("left");
        assert_eq!(shown(picture, 6), (lines("a\nb\nc\nd\n\n\n"), true));
        assert_eq!(shown(picture, 2), (lines("a\nb"), true), "no row is another's");
    }

    #[test]
    fn the_terminal_is_given_back_once_with_the_last_picture() {
        let mut written = Vec::new();
        {
            let mut screen = Screen::new(&mut written);
            screen.draw(lines("a\nb")).expect("drawn");
            screen.draw(lines("c")).expect("drawn");
            screen.leave().expect("left");
        }
        let text = String::from_utf8(written).expect("text");
        assert_eq!((text.matches(ENTER).count(), text.matches(LEAVE).count()), (1, 1));
        assert!(text.ends_with(&format!("{LEAVE}c\n")), "{text:?}");
        let mut nothing = Vec::new();
        drop(Screen::new(&mut nothing));
        assert!(nothing.is_empty(), "who never drew has nothing to give back");
    }
}
