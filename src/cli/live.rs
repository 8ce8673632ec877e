//! Output that is shown again and again: on a terminal in place, elsewhere one after the other.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use crossterm::terminal::{self, ClearType};
use crossterm::{cursor, execute, queue};

use super::child::interrupt::Interrupt;
use super::output::{self, Form};

/// The time within which a key has its effect.
const LOOK: Duration = Duration::from_millis(50);

/// The option of every command that can show its answer again and again.
#[derive(Args, Clone, Debug)]
pub(super) struct WatchArgs {
    /// Show the answer again every so many seconds, until q or Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "2", value_parser = clap::value_parser!(u16).range(1..=3600))]
    watch: Option<u16>,
}

/// An answer: its text, and whether it is good news.
pub(super) type Shown = (String, bool);

/// Shows an answer, once or, if it is to be watched, again and again. The exit code is that of the
/// answer; a view that a person ended is a success.
///
/// # Errors
/// There is no answer. While it is being watched, the error is shown in its place.
pub(super) fn show(
    watch: &WatchArgs,
    form: Form,
    mut answer: impl FnMut() -> anyhow::Result<Shown> + Send + 'static,
) -> anyhow::Result<ExitCode> {
    let Some(seconds) = watch.watch else {
        let (text, good) = answer()?;
        output::print(&text)?;
        return Ok(super::verdict(good));
    };
    let every = Duration::from_secs(seconds.into());
    if io::stdout().is_terminal() && form == Form::Table {
        return view(every, answer);
    }
    loop {
        let (text, _) = answer()?;
        let between = match form {
            Form::Table => "\n",
            Form::Yaml => "---\n",
            Form::Json => "",
        };
        if !output::print_on(&format!("{text}{between}"))? {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(every);
    }
}

/// Shows an answer on the whole terminal, anew every so often, until the user has seen enough.
///
/// # Errors
/// The terminal cannot be used.
pub(super) fn view(
    every: Duration,
    mut answer: impl FnMut() -> anyhow::Result<Shown> + Send + 'static,
) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::watch().context("cannot watch for signals")?;
    let (sender, answers) = mpsc::sync_channel(0);
    // A daemon that does not answer keeps no key from being heard.
    std::thread::Builder::new().name("answers".to_owned()).spawn(move || {
        loop {
            let began = Instant::now();
            let text = answer().map_or_else(|error| format!("{error:#}\n"), |(text, _)| text);
            if sender.send(text).is_err() {
                return;
            }
            std::thread::sleep(every.saturating_sub(began.elapsed()));
        }
    })?;
    let mut screen = Screen::open()?;
    let shown = watch_keys(&mut screen, &answers, &interrupt);
    drop(screen);
    shown.map(|()| ExitCode::SUCCESS)
}

fn watch_keys(
    screen: &mut Screen,
    answers: &Receiver<String>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    while !interrupt.has_come() {
        match answers.try_recv() {
            Ok(text) => screen.draw(text)?,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => anyhow::bail!("the view ended by itself"),
        }
        if !event::poll(LOOK).context("cannot read keys")? {
            continue;
        }
        match event::read().context("cannot read keys")? {
            Event::Key(key) => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(());
                }
                _ => {}
            },
            Event::Resize(..) => screen.draw_again()?,
            _ => {}
        }
    }
    Ok(())
}

/// The terminal, which is as it was before once this is dropped.
struct Screen {
    last: String,
}

impl Screen {
    fn open() -> anyhow::Result<Self> {
        terminal::enable_raw_mode().context("cannot read single keys of this terminal")?;
        let screen = Self { last: String::new() };
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)
            .context("cannot use this terminal")?;
        Ok(screen)
    }

    fn draw(&mut self, text: String) -> anyhow::Result<()> {
        self.last = text;
        self.draw_again()
    }

    fn draw_again(&mut self) -> anyhow::Result<()> {
        let (_, height) = terminal::size().context("cannot measure this terminal")?;
        let mut out = io::stdout().lock();
        let drawn = (|| {
            queue!(out, cursor::MoveTo(0, 0))?;
            for line in fitting(&self.last, height.into()) {
                write!(out, "{line}")?;
                queue!(out, terminal::Clear(ClearType::UntilNewLine))?;
                write!(out, "\r\n")?;
            }
            write!(out, "q: quit")?;
            queue!(out, terminal::Clear(ClearType::FromCursorDown))?;
            out.flush()
        })();
        drawn.context("cannot draw on this terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// The lines of a text that fit on a screen, above the line that names the keys.
fn fitting(text: &str, height: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let room = height.saturating_sub(1);
    if lines.len() <= room {
        return lines;
    }
    let mut shown = lines[..room.saturating_sub(1)].to_vec();
    shown.push("... (more than fits here)");
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(fitting("a\nb\n", 3), ["a", "b"]);
        assert_eq!(fitting("a\nb\nc\n", 3), ["a", "... (more than fits here)"]);
    }
}
