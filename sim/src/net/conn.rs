//! A connection's state: two ends (sockets) and two pipes (directions). No behaviour that needs the network is here.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::task::Waker;
use std::time::Duration;

/// A host's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) u16);

/// A connection's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnId(pub(super) u64);

/// The connections that are not over, in order of their numbers. Each event and each poll looks one up.
#[derive(Default)]
pub(super) struct Conns {
    /// By number; empty places are connections that are over.
    places: Vec<Option<Box<Conn>>>,
    /// Places that are not empty.
    len: usize,
}

impl Conns {
    /// Keeps `conn` under the next number.
    pub(super) fn add(&mut self, conn: Conn) -> ConnId {
        let id = ConnId(self.places.len() as u64);
        self.places.push(Some(Box::new(conn)));
        self.len += 1;
        id
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place of a number.
    fn place(id: ConnId) -> usize {
        usize::try_from(id.0).unwrap_or(usize::MAX)
    }

    /// The connection, unless it is over.
    pub(super) fn get(&self, id: &ConnId) -> Option<&Conn> {
        self.places.get(Self::place(*id))?.as_deref()
    }

    /// The connection to change, unless it is over.
    pub(super) fn get_mut(&mut self, id: &ConnId) -> Option<&mut Conn> {
        self.places.get_mut(Self::place(*id))?.as_deref_mut()
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, id: &ConnId) {
        let gone = self.places.get_mut(Self::place(*id)).and_then(Option::take);
        self.len -= usize::from(gone.is_some());
    }

    /// All, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        let numbered = (0..).map(ConnId).zip(&self.places);
        numbered.filter_map(|(id, place)| Some((id, place.as_deref()?)))
    }

    /// All, by number, taken out.
    pub(super) fn into_values(self) -> impl Iterator<Item = Conn> {
        self.places.into_iter().flatten().map(|conn| *conn)
    }
}

/// One life of a process on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Its host.
    pub(super) host: HostId,
    /// Processes of the host that ended before it.
    pub(super) incarnation: u32,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// The end that connected.
    Caller,
    /// The end that accepted.
    Callee,
}

impl Side {
    /// The other end.
    pub(super) fn peer(self) -> Side {
        match self {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        }
    }

    /// Position in [`Conn::ends`] and [`Conn::pipes`].
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// A connection.
pub(super) struct Conn {
    /// The sockets, by [`Side::index`].
    pub(super) ends: [End; 2],
    /// The directions, by the index of the sending side.
    pub(super) pipes: [Pipe; 2],
    /// How it comes about.
    pub(super) dial: Dial,
}

impl Conn {
    /// The socket of `side`.
    pub(super) fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side.index()]
    }

    /// The direction in which `side` sends.
    pub(super) fn pipe(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side.index()]
    }

    /// The host of `side`.
    pub(super) fn host(&self, side: Side) -> HostId {
        self.ends[side.index()].life.host
    }

    /// True when neither socket exists and nothing is under way.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| !end.open) && self.pipes.iter().all(|pipe| pipe.wire.is_empty())
    }
}

/// A connection attempt.
#[derive(Default)]
pub(super) struct Dial {
    /// When the first packet was sent.
    pub(super) started: Duration,
    /// Packets that got no answer.
    pub(super) tries: u32,
    /// The answer under way says that nobody listens.
    pub(super) refused: bool,
    /// How it ended.
    pub(super) outcome: Option<Result<(), ErrorKind>>,
    /// Who waits for that.
    pub(super) waker: Option<Waker>,
}

/// A socket.
pub(super) struct End {
    /// The process that owns it.
    pub(super) life: Life,
    /// Its port.
    pub(super) port: u16,
    /// The process has not closed it and has not ended.
    pub(super) open: bool,
    /// An application holds it (false while it waits to be accepted).
    pub(super) held: bool,
    /// Nothing more will be written.
    pub(super) shut: bool,
    /// Bytes that arrived and were not read.
    pub(super) unread: VecDeque<Bytes>,
    /// The peer has ended its direction.
    pub(super) eof: bool,
    /// Why the connection failed.
    pub(super) error: Option<ErrorKind>,
    /// A write has been told of the error; the next ones see a broken pipe.
    pub(super) told: bool,
    /// Who waits for data.
    pub(super) reader: Option<Waker>,
    /// Who waits for room.
    pub(super) writer: Option<Waker>,
}

impl End {
    /// A fresh socket.
    pub(super) fn new(life: Life, port: u16) -> Self {
        End {
            life,
            port,
            open: true,
            held: true,
            shut: false,
            unread: VecDeque::new(),
            eof: false,
            error: None,
            told: false,
            reader: None,
            writer: None,
        }
    }

    /// True when the kernel still knows the connection at this end.
    pub(super) fn alive(&self) -> bool {
        self.open && self.error.is_none()
    }
}

/// One direction.
#[derive(Default)]
pub(super) struct Pipe {
    /// Segments under way, in order.
    pub(super) wire: VecDeque<Segment>,
    /// Arrival of the last segment; later ones do not overtake it.
    pub(super) last_at: Duration,
    /// An arrival event is scheduled.
    pub(super) moving: bool,
    /// Times that the first segment was dropped.
    pub(super) tries: u32,
    /// When it was first dropped.
    pub(super) lost_since: Option<Duration>,
    /// Bytes written that the writer does not know to be read.
    pub(super) outstanding: usize,
    /// When the writer learns of how many bytes that were read.
    pub(super) releases: VecDeque<(Duration, usize)>,
    /// When the window of a waiting writer is looked at next.
    pub(super) room_at: Option<Duration>,
    /// Since when a waiting writer's probes are lost.
    pub(super) probe_lost: Option<Duration>,
    /// Data arrived, but its acknowledgement was dropped, first then.
    pub(super) ack_lost: Option<Duration>,
}

/// What travels in order.
pub(super) struct Segment {
    /// When it arrives.
    pub(super) at: Duration,
    /// It was sent into a blocked link.
    pub(super) lost: bool,
    /// What it carries.
    pub(super) load: Load,
}

/// The contents of a segment.
pub(super) enum Load {
    /// The caller's last word of the handshake: the connection may be accepted.
    Open,
    /// Bytes.
    Data(Bytes),
    /// Nothing more follows.
    Fin,
}

impl Load {
    /// Bytes it takes on the link, without headers.
    pub(super) fn len(&self) -> usize {
        match self {
            Load::Data(bytes) => bytes.len(),
            Load::Open | Load::Fin => 0,
        }
    }
}
