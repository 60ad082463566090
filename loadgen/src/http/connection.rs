//! One kept-alive HTTP/1.1 connection, blocking. It opens itself when it is first used, and again when the
//! server has closed it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::target::Target;

/// The server's answer has so much time: more than its own deadline of ten seconds.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Longest body that is read: a page of history is at most some hundred KiB.
const BODY_BYTES_MAX: u64 = 16 << 20;

/// Longest line of a head that is read.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// No answer. Whether the request was carried out is unknown.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {target}: {source}")]
pub struct HttpError {
    /// From whom.
    pub target: String,
    /// Why.
    pub source: io::Error,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection.
pub struct Connection {
    target: Target,
    stream: Option<BufReader<Box<dyn Stream>>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Connection {
    /// A connection that is not open yet.
    pub fn new(target: Target) -> Self {
        Self { target, stream: None }
    }

    /// Sends a request and waits for its answer. `extra` are whole header lines, each with its line end.
    ///
    /// # Errors
    /// There is no answer; the next request opens a new connection.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        extra: &str,
        body: &str,
    ) -> Result<Answer, HttpError> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{extra}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.target.authority,
            body.len()
        );
        let was_open = self.stream.is_some();
        let answer = match self.exchange(&request) {
            // A kept connection may have been closed meanwhile; a read is safe to ask again.
            Err(_) if was_open && method == "GET" => self.exchange(&request),
            answer => answer,
        };
        answer.map_err(|source| HttpError { target: format!("{:?}", self.target), source })
    }

    fn exchange(&mut self, request: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open()?,
        };
        stream.get_mut().write_all(request.as_bytes())?;
        stream.get_mut().flush()?;
        let (answer, keep) = read_answer(&mut stream)?;
        if keep {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn open(&self) -> io::Result<BufReader<Box<dyn Stream>>> {
        let stream = TcpStream::connect_timeout(&self.target.address, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let stream: Box<dyn Stream> = match &self.target.tls {
            Some((config, name)) => {
                let tls = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(tls, stream))
            }
            None => Box::new(stream),
        };
        Ok(BufReader::new(stream))
    }
}

/// Reads one answer; whether the connection may be used again.
fn read_answer(stream: &mut impl BufRead) -> io::Result<(Answer, bool)> {
    let wrong = |what: &str| io::Error::other(format!("the answer is not HTTP: {what}"));
    let first = read_line(stream)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(|| wrong(&first))?;
    let (mut length, mut chunked, mut keep) = (None, false, true);
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| wrong(&line))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.parse::<u64>().map_err(|_| wrong(value))?),
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => keep = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let line = read_line(stream)?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or(""), 16);
            let size = size.map_err(|_| wrong("a chunk without a size"))?;
            read_exactly(stream, size, &mut body)?;
            read_line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else if !matches!(status, 204 | 304) {
        let length = length.ok_or_else(|| wrong("neither a length nor chunks"))?;
        read_exactly(stream, length, &mut body)?;
    }
    Ok((Answer { status, body }, keep))
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.take(LINE_BYTES_MAX).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_exactly(stream: &mut impl BufRead, bytes: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if bytes > BODY_BYTES_MAX - (body.len() as u64).min(BODY_BYTES_MAX) {
        return Err(io::Error::other("the body is too long"));
    }
    match stream.take(bytes).read_to_end(body)? as u64 == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_a_length_or_comes_in_chunks() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 201 Created\r\n\
                    transfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        let mut stream = text.as_bytes();
        let (answer, keep) = read_answer(&mut stream).unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), keep), (200, &b"hi"[..], true));
        let (answer, keep) = read_answer(&mut stream).unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), keep), (201, &b"abcde"[..], false));
        assert!(stream.is_empty());
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_an_error() {
        for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", "x\r\n\r\n"]
        {
            assert!(read_answer(&mut text.as_bytes()).is_err(), "{text:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", u64::MAX);
        assert!(read_answer(&mut long.as_bytes()).is_err());
    }
}
