import Testing

@testable import HostSystem

@Suite struct AcceptorTests {
    /// A listener that says what it is told to say.
    private final class Script {
        let readable: EventFD
        var answers: [Errno?] = []
        var asked = 0
        var connections = 0
        var failures: [Errno] = []

        init() throws {
            readable = try EventFD()
            readable.signal()
        }

        /// `nil` in `answers` is a connection; nothing more is one that is not there.
        func next() throws(SystemError) -> UnixSocket? {
            asked += 1
            guard !answers.isEmpty else { return nil }
            if let error = answers.removeFirst() { throw SystemError("accept", error) }
            return try UnixSocket.pair().0
        }

        func acceptor(_ loop: EventLoop, pause: UInt64) throws -> Acceptor {
            try Acceptor(
                Acceptor.Source(descriptor: readable.descriptor) {
                    [self] () throws(SystemError) in try next()
                },
                loop: loop,
                pause: pause,
                onConnection: { [weak self] _ in self?.connections += 1 },
                onFailure: { [weak self] error in self?.failures.append(error.errno) }
            )
        }
    }

    @Test func `HI-I19: without descriptors it looks away, longer each time, and comes back`()
        throws
    {
        let loop = try EventLoop()
        let script = try Script()
        let none = Errno?.some(.tooManyDescriptors)
        script.answers = [nil, none, none, none, none, none, nil, nil]
        let acceptor = try script.acceptor(loop, pause: 20)
        var pauses: [UInt64] = []
        let deadline = Deadline(milliseconds: 20_000)
        while script.connections < 3, !deadline.hasPassed {
            let failures = script.failures.count
            try loop.turn(limitMilliseconds: 5)
            if script.failures.count > failures { pauses.append(acceptor.pause) }
        }
        #expect(script.connections == 3)
        #expect(script.failures == [Errno](repeating: .tooManyDescriptors, count: 5))
        // Of the pause that comes next; ten times the first is the longest.
        #expect(pauses == [40, 80, 160, 200, 200])
        #expect(acceptor.pause == 20)
        // The socket was readable all the time, and nobody span for it.
        #expect(script.asked <= 8 + 3)
    }

    @Test func `a turn takes no more than its share, and the next one goes on`() throws {
        let loop = try EventLoop()
        let script = try Script()
        script.answers = [Errno?](repeating: nil, count: 20)
        let acceptor = try script.acceptor(loop, pause: 20)
        try loop.turn(limitMilliseconds: 1000)
        #expect(script.connections == 16)
        try loop.turn(limitMilliseconds: 1000)
        #expect(script.connections == 20)
        #expect(acceptor.isOpen)
    }

    @Test func `once closed it takes nothing, also while it looks away`() throws {
        let loop = try EventLoop()
        let script = try Script()
        script.answers = [.tooManyDescriptors, nil]
        let acceptor = try script.acceptor(loop, pause: 1)
        try loop.turn(limitMilliseconds: 1000)
        #expect(script.failures.count == 1)
        acceptor.close()
        #expect(!acceptor.isOpen)
        for _ in 0..<5 { try loop.turn(limitMilliseconds: 5) }
        #expect(script.connections == 0)
        #expect(script.answers.count == 1)
    }
}
