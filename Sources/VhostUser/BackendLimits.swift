public import HostSystem

/// How long a back-end waits, and how much it does at once.
public struct BackendLimits: Sendable {
    /// Messages of one front-end that are served before others get their turn (HI-D40).
    public var messagesPerTurn = 64
    /// How long the front-end may take over half a message or over reading a reply.
    public var deadlines = Connection.Deadlines()
    /// Milliseconds that the device has to stop its rings.
    public var quiesce: UInt64 = 5000
    /// Milliseconds before bytes are offered again to a socket that was full.
    public var retry: UInt64 = 5
    /// Milliseconds before connections are accepted again after the process ran out of descriptors;
    /// doubled up to ten times as much while that lasts (HI-I19).
    public var acceptPause: UInt64 = 100

    /// The limits that suit a program on a busy machine.
    public init() {}
}
