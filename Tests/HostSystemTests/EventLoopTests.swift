import HostSystem
import Testing

@Suite struct EventLoopTests {
    @Test func `a readable descriptor calls its handler until it is removed`() throws {
        let loop = try EventLoop()
        let event = try EventFD()
        var calls = 0
        let source = try loop.watch(event.descriptor) {
            calls += 1
            _ = event.drain()
        }
        event.signal()
        try loop.turn(limitMilliseconds: 100)
        try loop.turn(limitMilliseconds: 0)
        #expect(calls == 1)
        loop.remove(source)
        event.signal()
        try loop.turn(limitMilliseconds: 0)
        #expect(calls == 1)
    }

    @Test func `a handler may remove a source that is ready in the same turn`() throws {
        let loop = try EventLoop()
        let events = [try EventFD(), try EventFD()]
        var sources: [EventLoop.Source] = []
        var calls = 0
        for event in events {
            sources.append(
                try loop.watch(event.descriptor) {
                    calls += 1
                    for source in sources { loop.remove(source) }
                }
            )
        }
        for event in events { event.signal() }
        try loop.turn(limitMilliseconds: 100)
        #expect(calls == 1)
    }

    @Test func `timers fire once, in order, and not when removed`() throws {
        let loop = try EventLoop()
        var order: [Int] = []
        loop.after(milliseconds: 20) { order.append(2) }
        loop.after(milliseconds: 1) { order.append(1) }
        let removed = loop.after(milliseconds: 5) { order.append(9) }
        loop.remove(removed)
        let deadline = Deadline(milliseconds: 2000)
        while order.count < 2, !deadline.hasPassed { try loop.turn(limitMilliseconds: 50) }
        try loop.turn(limitMilliseconds: 0)
        #expect(order == [1, 2])
    }

    @Test func `a turn inside a timer's handler fires the timers that are due`() throws {
        let loop = try EventLoop()
        var order: [Int] = []
        loop.after(milliseconds: 0) {
            let deadline = Deadline(milliseconds: 5000)
            while order.count < 2, !deadline.hasPassed { try? loop.turn(limitMilliseconds: 50) }
            order.append(1)
        }
        loop.after(milliseconds: 0) { order.append(2) }
        loop.after(milliseconds: 20) { order.append(3) }
        let deadline = Deadline(milliseconds: 10_000)
        while order.count < 3, !deadline.hasPassed { try loop.turn(limitMilliseconds: 50) }
        #expect(order == [2, 3, 1])
    }

    @Test func `stop ends run from inside a handler`() throws {
        let loop = try EventLoop()
        var turns = 0
        loop.after(milliseconds: 1) {
            turns += 1
            loop.stop()
        }
        try loop.run()
        #expect(turns == 1)
    }

    @Test func `one descriptor cannot be watched twice`() throws {
        let loop = try EventLoop()
        let event = try EventFD()
        _ = try loop.watch(event.descriptor) {}
        #expect(throws: SystemError.self) { try loop.watch(event.descriptor) {} }
    }
}
