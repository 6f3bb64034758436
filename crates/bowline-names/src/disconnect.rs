//! Why things end.

crate::table! {
    /// Why a session or a socket ended. The names are Socket.IO's own words, which client
    /// libraries, logs and dashboards already know.
    pub enum DisconnectReason;

    columns {
        /// Says when this is the reason.
        help: &'static str,
        /// The words of the Socket.IO documentation.
        name: &'static str,
    }

    TransportError {
        help: "The transport failed.",
        name: "transport error",
    }
    TransportClose {
        help: "The transport was closed by the peer.",
        name: "transport close",
    }
    ForcedClose {
        help: "The server closed the session below the namespaces.",
        name: "forced close",
    }
    PingTimeout {
        help: "No pong (EIO 4) or no ping (EIO 3) came in time.",
        name: "ping timeout",
    }
    ParseError {
        help: "The peer sent what cannot be read.",
        name: "parse error",
    }
    ServerShuttingDown {
        help: "The server stops.",
        name: "server shutting down",
    }
    ForcedServerClose {
        help: "The server closed the connection because of what the client did or failed to do.",
        name: "forced server close",
    }
    ClientNamespaceDisconnect {
        help: "The client left the namespace.",
        name: "client namespace disconnect",
    }
    ServerNamespaceDisconnect {
        help: "The server removed the socket from the namespace.",
        name: "server namespace disconnect",
    }
}
