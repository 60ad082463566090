//! The terminal of a live run: taken at its begin, and given back however the run ends.

use std::io::{self, Stderr};
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

/// A terminal in raw mode, on its alternate screen.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    stop: bool,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It is none, or cannot be set.
    pub(super) fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let opened = execute!(io::stderr(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stderr())));
        match opened {
            Ok(terminal) => Ok(Self { terminal, stop: false }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws. A terminal that went away is no reason to end a run.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame)) {
        let _ = self.terminal.draw(draw);
    }

    /// Whether `q` or Ctrl-C was typed since the start.
    pub(super) fn stop_is_wanted(&mut self) -> bool {
        // What was typed is few; the bound is for a terminal that always says it has something.
        for _ in 0..100 {
            if !event::poll(Duration::ZERO).unwrap_or(false) {
                break;
            }
            if let Ok(Event::Key(key)) = event::read() {
                let is_interrupt =
                    key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                self.stop |= is_interrupt || key.code == KeyCode::Char('q');
            }
        }
        self.stop
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stderr(), LeaveAlternateScreen, ratatui::crossterm::cursor::Show);
}
