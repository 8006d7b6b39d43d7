//! A network of the test's own: passes TCP connections on, late if asked to, and can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Pieces on the way in one direction; a slow far side stops the near one.
const ON_THE_WAY: usize = 64;

/// How a network fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes and nobody is told, as when packets are lost. What was sent arrives later.
    Silent,
    /// Connections break, and new ones do too.
    Refused,
}

/// Passes connections to its port on to another, until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    delay: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    cut: Option<Cut>,
    ended: bool,
    open: Vec<TcpStream>,
}

impl Forwarder {
    /// Passes on to `target` (`host:port`); each byte is `delay` on its way, in both directions.
    pub fn start(target: &str, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            delay,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || of_thread.accept(&listener));
        Ok(Self { address, shared })
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Cuts it.
    pub fn cut(&self, how: Cut) {
        self.shared.change(Some(how));
    }

    /// Lets everything pass again.
    pub fn restore(&self) {
        self.shared.change(None);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.change(Some(Cut::Refused));
        // The accepting thread sees that it has ended.
        TcpStream::connect(self.address).ok();
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, cut: Option<Cut>) {
        let mut state = self.state();
        state.cut = cut;
        if cut == Some(Cut::Refused) {
            for stream in state.open.drain(..) {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
        self.changed.notify_all();
    }

    /// Waits while nothing passes. False where the connection is to end.
    fn pass(&self) -> bool {
        let silent = |state: &mut State| state.cut == Some(Cut::Silent);
        let state = self.changed.wait_while(self.state(), silent);
        state.unwrap_or_else(PoisonError::into_inner).cut.is_none()
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((near, _)) = listener.accept() {
            if self.state().ended {
                return;
            }
            let shared = Arc::clone(&self);
            // One that cannot be passed on is closed.
            std::thread::spawn(move || shared.connect(near).ok());
        }
    }

    fn connect(self: Arc<Self>, near: TcpStream) -> Result<()> {
        if !self.pass() {
            return Ok(());
        }
        let far = TcpStream::connect(&self.target)?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
        }
        {
            let mut state = self.state();
            state.open.retain(|stream| stream.peer_addr().is_ok());
            state.open.extend([near.try_clone()?, far.try_clone()?]);
            if state.cut == Some(Cut::Refused) {
                drop(state);
                self.change(Some(Cut::Refused));
            }
        }
        self.pump(near.try_clone()?, far.try_clone()?);
        self.pump(far, near);
        Ok(())
    }

    fn pump(self: &Arc<Self>, from: TcpStream, to: TcpStream) {
        let (sender, receiver) = sync_channel(ON_THE_WAY);
        std::thread::spawn(move || read(from, &sender));
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.write(to, &receiver));
    }

    fn write(&self, mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>) {
        for (at, piece) in pieces {
            let due = at + self.delay;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if !self.pass() || to.write_all(&piece).is_err() {
                to.shutdown(Shutdown::Both).ok();
                return;
            }
        }
        if self.pass() {
            to.shutdown(Shutdown::Write).ok();
        }
    }
}

fn read(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let piece = buffer.get(..length).unwrap_or_default().to_vec();
        if pieces.send((Instant::now(), piece)).is_err() {
            from.shutdown(Shutdown::Both).ok();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?.to_string();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut out = stream.try_clone()?;
                    std::io::copy(&mut &stream, &mut out)
                });
            }
        });
        Ok(address)
    }

    fn answered(stream: &mut TcpStream, word: &[u8; 4]) -> Result<bool> {
        stream.write_all(word)?;
        let mut back = [0; 4];
        Ok(stream.read_exact(&mut back).is_ok() && back == *word)
    }

    #[test]
    fn what_is_cut_silently_arrives_later_and_what_is_refused_never() -> Result<()> {
        let forwarder = Forwarder::start(&echo()?, Duration::from_millis(20))?;
        let mut stream = TcpStream::connect(forwarder.address())?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        let begun = Instant::now();
        assert!(answered(&mut stream, b"once")?);
        assert!(begun.elapsed() >= Duration::from_millis(40), "late in both directions");
        forwarder.cut(Cut::Silent);
        assert!(!answered(&mut stream, b"dark")?);
        forwarder.restore();
        let mut back = [0; 4];
        stream.read_exact(&mut back)?;
        assert_eq!(&back, b"dark");
        forwarder.cut(Cut::Refused);
        assert_eq!(stream.read(&mut back)?, 0, "it broke");
        let mut second = TcpStream::connect(forwarder.address())?;
        assert!(!answered(&mut second, b"more").unwrap_or(false));
        forwarder.restore();
        let mut third = TcpStream::connect(forwarder.address())?;
        assert!(answered(&mut third, b"back")?);
        Ok(())
    }
}
