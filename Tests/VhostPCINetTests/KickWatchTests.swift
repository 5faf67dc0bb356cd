import Glibc
import HostSystem
import Testing

@testable import VhostPCINet

@Suite struct KickWatchTests {
    private final class Log {
        var rings: [Int] = []
    }

    private let loop: EventLoop
    private let log = Log()
    private let watch: KickWatch
    private let kicks: [EventFD]

    init() throws {
        loop = try EventLoop()
        watch = KickWatch(loop: loop) { [log] in log.rings.append($0) }
        kicks = try (0..<2).map { _ in try EventFD() }
    }

    /// An eventfd that gives its count back one by one; Glibc's module leaves the call out.
    private func semaphore(count: UInt32) throws -> FileDescriptor {
        typealias Call = @convention(c) (UInt32, Int32) -> Int32
        let symbol = unsafe try #require(dlsym(nil, "eventfd"))
        let call = unsafe unsafeBitCast(symbol, to: Call.self)
        let raw = call(count, 0o4001)  // EFD_NONBLOCK, EFD_SEMAPHORE
        #expect(raw >= 0)
        return FileDescriptor(owning: raw)
    }

    @Test func `VPN-D-05: a kick wakes its own ring and no other`() throws {
        try watch.watch([1: kicks[0].descriptor, 3: kicks[1].descriptor])
        kicks[1].signal()
        try loop.turn(limitMilliseconds: 100)
        #expect(log.rings == [3])
    }

    @Test func `kicks between two turns are one wake-up`() throws {
        try watch.watch([1: kicks[0].descriptor])
        for _ in 0..<1000 { kicks[0].signal() }
        try loop.turn(limitMilliseconds: 100)
        try loop.turn(limitMilliseconds: 1)
        #expect(log.rings == [1])
    }

    @Test func `a kick from before the watch is not lost`() throws {
        kicks[0].signal()
        try watch.watch([1: kicks[0].descriptor])
        try loop.turn(limitMilliseconds: 100)
        #expect(log.rings == [1])
    }

    @Test func `a ring that is not watched any more wakes nobody`() throws {
        try watch.watch([1: kicks[0].descriptor, 3: kicks[1].descriptor])
        try watch.watch([3: kicks[1].descriptor])
        kicks[0].signal()
        try loop.turn(limitMilliseconds: 1)
        watch.stop()
        kicks[1].signal()
        try loop.turn(limitMilliseconds: 1)
        #expect(log.rings.isEmpty)
        // The counts are still there for whoever watches next.
        #expect(kicks[0].drain() == 1)
    }

    @Test func `HI-A29: a peer that kicks without pause gets a bounded number of wake-ups`() throws
    {
        try watch.watch([1: kicks[0].descriptor])
        let start = MonotonicClock.now
        for _ in 0..<5000 {
            kicks[0].signal()
            try loop.turn(limitMilliseconds: 0)
        }
        let milliseconds = Int((MonotonicClock.now - start) / 1_000_000)
        #expect(log.rings.count <= (milliseconds + 2) * (KickWatch.burst + 1))
        #expect(log.rings.count < 5000)
        // And the last kick is served after the pause.
        log.rings = []
        kicks[0].signal()
        let deadline = Deadline(milliseconds: 1000)
        while log.rings.isEmpty, !deadline.hasPassed { try loop.turn(limitMilliseconds: 10) }
        #expect(log.rings.first == 1)
    }

    @Test func `HI-A29: in a storm that does not end the pauses grow`() throws {
        try watch.watch([1: kicks[0].descriptor])
        func storm(milliseconds: UInt64) throws {
            let end = Deadline(milliseconds: milliseconds)
            while !end.hasPassed {
                kicks[0].signal()
                try loop.turn(limitMilliseconds: 0)
            }
        }
        try storm(milliseconds: 300)
        let count = try fewestRings { try storm(milliseconds: 300) }
        #expect(count > 0)
        #expect(count <= 6 * (KickWatch.burst + 1))
    }

    /// The least that was counted in five runs: where this thread is kept waiting, wake-ups come too
    /// slowly to be a storm, and pauses start anew.
    private func fewestRings(_ run: () throws -> Void) throws -> Int {
        var fewest = Int.max
        for _ in 0..<5 {
            log.rings = []
            try run()
            fewest = min(fewest, log.rings.count)
        }
        return fewest
    }

    @Test func `HI-D24: a descriptor that is always readable and never counts is let go`() throws {
        let (near, far) = try UnixSocket.pair()
        try watch.watch([1: near.descriptor, 3: kicks[0].descriptor])
        withExtendedLifetime(far) {}
        _ = try far.send([1][...])
        for _ in 0..<10 { try loop.turn(limitMilliseconds: 1) }
        #expect(log.rings.isEmpty)
        kicks[0].signal()
        try loop.turn(limitMilliseconds: 100)
        #expect(log.rings == [3])
    }

    @Test
    func `HI-D24: a kick that gives its count back one by one wakes a bounded number of times`()
        throws
    {
        let semaphore = try semaphore(count: 1_000_000)
        try watch.watch([1: semaphore, 3: kicks[0].descriptor])
        let settled = Deadline(milliseconds: 400)
        while !settled.hasPassed { try loop.turn(limitMilliseconds: 2) }
        let count = try fewestRings {
            let window = Deadline(milliseconds: 400)
            while !window.hasPassed { try loop.turn(limitMilliseconds: 2) }
        }
        // At the longest pause there are at most seven windows in that time.
        #expect(count > 0)
        #expect(count <= 7 * (KickWatch.burst + 1))
        // Another ring's kick is not held up.
        log.rings = []
        kicks[0].signal()
        for _ in 0..<3 { try loop.turn(limitMilliseconds: 1) }
        #expect(log.rings.contains(3))
    }

    @Test func `HI-D24: a semaphore that was emptied is served without long pauses again`() throws {
        let semaphore = try semaphore(count: 300)
        try watch.watch([1: semaphore])
        let settled = Deadline(milliseconds: 100)
        while !settled.hasPassed { try loop.turn(limitMilliseconds: 2) }
        log.rings = []
        EventFD.signal(semaphore.rawValue)
        try loop.turn(limitMilliseconds: 100)
        try loop.turn(limitMilliseconds: 1)
        #expect(log.rings == [1])
    }

    @Test func `HI-D24: a descriptor that cannot be watched is refused`() throws {
        let file = try MemoryFile(name: "no kick", size: 4096)
        #expect(throws: Refusal.self) { try watch.watch([1: file.descriptor]) }
    }
}
