//! How a packet or a socket call ends: a [`Verdict`] with a named [`Reason`]. The only file with action numbers.
//!
//! Every path returns a verdict; the entry points turn it into the number their hook wants and count its reason.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $label:literal;)*) => {
        /// Why a packet was passed on, sent out again, answered or dropped: index of `REASON_COUNTERS`, label of a metric.
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(not(target_arch = "bpf"), derive(Debug, Hash))]
        pub struct Reason(pub u32);

        impl Reason {
            $($(#[doc = $doc])* pub const $name: Self = Self($number);)*
            /// Every reason with its metric label.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, $label),)*];
        }
    };
}

reasons! {
    /// Passed untouched: neither a tracked flow nor a frontend.
    NOT_OURS = 0, "not_ours";
    /// Passed untouched: not IP, or an IP protocol nothing is balanced for.
    NOT_BALANCED = 1, "not_balanced";
    /// Passed untouched: too short or malformed for its headers.
    MALFORMED = 2, "malformed";
    /// Passed untouched: TCP in mid-flow for a frontend, but in no table.
    UNKNOWN_FLOW = 3, "unknown_flow";
    /// A new flow was given a backend.
    NEW_FLOW = 4, "new_flow";
    /// A packet of a tracked flow, client to backend.
    FORWARDED = 5, "forwarded";
    /// A packet of a tracked flow, backend to client.
    REPLIED = 6, "replied";
    /// The other half of a flow was rebuilt from this one.
    REPAIRED = 7, "repaired";
    /// Answered with RST or port unreachable: the service has no endpoints.
    NO_ENDPOINTS = 8, "no_endpoints";
    /// Dropped: a Local policy, and no endpoint on this node.
    NO_LOCAL_ENDPOINTS = 9, "no_local_endpoints";
    /// Answered: a port nobody serves on an address of a Service.
    UNKNOWN_PORT = 10, "unknown_port";
    /// Answered with RST: the flow's backend is gone.
    BACKEND_GONE = 11, "backend_gone";
    /// Given another backend: the flow's backend is gone (UDP).
    BACKEND_MOVED = 12, "backend_moved";
    /// Dropped: no free source port for masquerading.
    NO_SOURCE_PORT = 13, "no_source_port";
    /// Dropped: the map of flows refused the entry.
    FLOW_TABLE = 14, "flow_table";
    /// Passed untouched to the program behind, because the neighbour is not resolved yet.
    NO_NEIGHBOUR = 15, "no_neighbour";
    /// Dropped: no route to the backend or to the client.
    NO_ROUTE = 16, "no_route";
    /// Dropped: a map entry disagrees with another (an id out of range, a service read while it changed).
    INCONSISTENT = 17, "inconsistent";
    /// Dropped: the time to live ran out.
    TTL = 18, "ttl";
    /// Dropped: the packet could not be rewritten (a helper refused).
    REWRITE = 19, "rewrite";
    /// A socket was connected to a backend.
    CONNECTED = 20, "connected";
    /// A datagram of an unconnected socket was sent to a backend.
    SENT = 21, "sent";
    /// A socket call was left alone: the address is no frontend.
    SOCKET_NOT_OURS = 22, "socket_not_ours";
    /// A socket call was refused: no endpoints.
    SOCKET_NO_ENDPOINTS = 23, "socket_no_endpoints";
    /// A socket call was refused: a Local policy, and no endpoint on this node.
    SOCKET_NO_LOCAL_ENDPOINTS = 24, "socket_no_local_endpoints";
    /// A socket was connected without being counted: no memory for its state.
    SOCKET_UNCOUNTED = 25, "socket_uncounted";
    /// A socket call was left to the packet path: its namespace opted out.
    SOCKET_OPT_OUT = 26, "socket_opt_out";
}

/// What the kernel is to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub enum Action {
    /// On to the next program, then to the stack.
    Pass,
    /// Nowhere.
    Drop,
    /// Out of the device a helper was told.
    Redirect,
}

/// How a packet ends: an action and its reason, in one word so that functions can return it in a register.
#[must_use]
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Verdict(u32);

impl Verdict {
    const PASS: u32 = 0;
    const DROP: u32 = 1 << 8;
    const REDIRECT: u32 = 2 << 8;

    /// On to the next program, then to the stack.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self(Self::PASS | reason.0)
    }

    /// Nowhere.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self(Self::DROP | reason.0)
    }

    /// Out of the device that [`Packet::redirect`](crate::packet::Packet::redirect) named.
    #[inline(always)]
    pub const fn redirect(reason: Reason) -> Self {
        Self(Self::REDIRECT | reason.0)
    }

    /// The same action for another reason.
    #[inline(always)]
    pub const fn because(self, reason: Reason) -> Self {
        Self(self.0 & !0xff | reason.0)
    }

    /// The reason.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        Reason(self.0 & 0xff)
    }

    /// The action.
    #[inline(always)]
    #[must_use]
    pub const fn action(self) -> Action {
        match self.0 & !0xff {
            Self::PASS => Action::Pass,
            Self::REDIRECT => Action::Redirect,
            _ => Action::Drop,
        }
    }

    /// The action's number for an XDP program.
    #[inline(always)]
    #[must_use]
    pub const fn xdp(self) -> u32 {
        match self.action() {
            Action::Pass => XDP_PASS,
            Action::Drop => XDP_DROP,
            Action::Redirect => XDP_REDIRECT,
        }
    }

    /// The action's number for a TC program.
    #[inline(always)]
    #[must_use]
    pub const fn tc(self) -> i32 {
        match self.action() {
            Action::Pass => TC_NEXT,
            Action::Drop => TC_DROP,
            Action::Redirect => TC_REDIRECT,
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl core::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let label = Reason::ALL
            .iter()
            .find(|(reason, _)| *reason == self.reason())
            .map_or("?", |(_, label)| label);
        write!(f, "{:?}({label})", self.action())
    }
}

/// `XDP_DROP`.
pub const XDP_DROP: u32 = 1;
/// `XDP_PASS`.
pub const XDP_PASS: u32 = 2;
/// `XDP_REDIRECT`.
pub const XDP_REDIRECT: u32 = 4;
/// `TCX_NEXT` and `TC_ACT_UNSPEC`: whoever is attached behind gets the packet too.
pub const TC_NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub const TC_DROP: i32 = 2;
/// `TC_ACT_REDIRECT`.
pub const TC_REDIRECT: i32 = 7;
