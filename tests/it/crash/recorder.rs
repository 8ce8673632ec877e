//! Storage in memory that records its writes, in one list with the calls and answers.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// The content of the two files of a node.
pub(super) type Images = [Vec<u8>; 2];

#[derive(Clone, Debug)]
pub(super) enum Entry {
    Write {
        file: usize,
        offset: usize,
        data: Vec<u8>,
    },
    SetLen {
        file: usize,
        len: usize,
    },
    /// The files are made; before that, a new file has another name and is ignored.
    Made,
    Called(usize),
    Answered(usize, Answer),
}

impl Entry {
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Write { file, offset, data } => {
                format!("{} bytes at {offset} of file {file}", data.len())
            }
            other => format!("{other:?}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Added(Vec<IpAddr>),
    Ended,
    Failed,
}

pub(super) type Log = Arc<Mutex<Vec<Entry>>>;

/// A file in memory that records its writes.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) file: usize,
    pub(super) bytes: Mutex<Vec<u8>>,
    pub(super) log: Log,
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (file, len) = (self.file, usize::try_from(len).unwrap());
        self.bytes.lock().unwrap().resize(len, 0);
        self.log.lock().unwrap().push(Entry::SetLen { file, len });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (file, offset) = (self.file, usize::try_from(offset).unwrap());
        self.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        self.log.lock().unwrap().push(Entry::Write { file, offset, data: data.to_vec() });
        Ok(())
    }
}
