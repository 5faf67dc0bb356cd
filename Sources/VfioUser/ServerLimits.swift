public import HostSystem

/// Bounds on what a client may cost.
public struct ServerLimits: Sendable {
    /// How long half a message and an unread reply may last.
    public var deadlines: FramedStream.Deadlines
    /// Milliseconds from a connection to its VERSION.
    public var negotiationMilliseconds: UInt64
    /// Milliseconds that a client may take to answer a DMA message.
    public var replyMilliseconds: UInt64
    /// Ranges of memory.
    public var memory: DMATable.Limits
    /// Commands served in one turn of the loop; the next turn goes on.
    public var messagesPerTurn: Int
    /// Nanoseconds after which a turn begins no further command.
    public var turnNanoseconds: UInt64
    /// Milliseconds to look away from the listening socket when no descriptor is free.
    public var acceptPause: UInt64
    /// Milliseconds between attempts to send to a client whose socket is full.
    public var retry: UInt64
    /// Milliseconds that a file which was taken away stays mapped.
    public var keepFiles: UInt64

    /// Sets all; the times in milliseconds where they do not say otherwise.
    public init(
        deadlines: FramedStream.Deadlines = FramedStream.Deadlines(),
        negotiationMilliseconds: UInt64 = 5000,
        replyMilliseconds: UInt64 = 5000,
        memory: DMATable.Limits = DMATable.Limits(),
        messagesPerTurn: Int = 64,
        turnNanoseconds: UInt64 = 2_000_000,
        acceptPause: UInt64 = 100,
        retry: UInt64 = 2,
        keepFiles: UInt64 = 2000
    ) {
        self.deadlines = deadlines
        self.negotiationMilliseconds = negotiationMilliseconds
        self.replyMilliseconds = replyMilliseconds
        self.memory = memory
        self.messagesPerTurn = messagesPerTurn
        self.turnNanoseconds = turnNanoseconds
        self.acceptPause = acceptPause
        self.retry = retry
        self.keepFiles = keepFiles
    }
}
