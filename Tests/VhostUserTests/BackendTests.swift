import Glibc
import HostSystem
import RingSupport
import Testing
import VirtioSpec

@testable import VhostUser

@Suite struct BackendTests {
    @Test func `a session from connect to rings enabled gives one snapshot`() throws {
        let rig = try BackendRig()
        let memory = try TestMemory()
        _ = try rig.connectWorking(memory)
        #expect(rig.device.connectionCount == 1)
        #expect(rig.backend.isConnected)
        #expect(rig.device.snapshots.count == 1, "calls are coalesced over a turn")
        let snapshot = try #require(rig.device.snapshots.last)
        #expect(snapshot.rings.map(\.index) == [0, 1])
        #expect(snapshot.rings.allSatisfy { $0.isStarted && $0.isEnabled })
        #expect(snapshot.rings.allSatisfy { $0.kick?.isEventFD == true })
        #expect(snapshot.features.contains([.version1, .netMergeableBuffers]))
        #expect(rig.device.quiesceCount == 0)
        #expect(rig.device.refusals.isEmpty)
    }

    @Test func `VU-H-06: replies come in the order of the requests`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connect()
        try puppet.send(.getFeatures)
        try puppet.send(.getProtocolFeatures)
        try rig.turn()
        #expect(try puppet.reply(to: .getFeatures) == SessionRig.features.rawValue | 1 << 30)
        #expect(try puppet.reply(to: .getProtocolFeatures) == 0x1a009)
    }

    @Test func `VU-B-21: after a loss all is let go and the next front-end is served`() throws {
        let rig = try BackendRig()
        let memory = try TestMemory()
        for round in 1...20 {
            do { _ = try rig.connectWorking(memory) }
            try rig.turn()
            #expect(rig.device.ends.count == round)
            #expect(rig.device.ends.last == .closed)
            #expect(!rig.backend.isConnected)
            #expect(openCount(sharing: memory.file.descriptor) == 1)
        }
        #expect(rig.backend.connectionCount == 20)
    }

    @Test func `HI-D25: a front-end whose call eventfd blocks us is disconnected`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connectWorking(try TestMemory())
        let blocking = try BlockingEvent()
        // The front-end takes the flag away again between our setting it and our signal.
        rig.device.onCall = { blocking.block() }
        let index = VringDescriptor(index: 0, hasDescriptor: true).encoded
        try puppet.send(.setVringCall, index, [blocking.event.descriptor])
        let start = MonotonicClock.now
        try rig.turn()
        #expect(MonotonicClock.now - start < 1_000_000_000)
        #expect(rig.device.lastFault == "notify/blocked")
        #expect(!rig.backend.isConnected)
    }

    @Test func `HI-D38: a second connection is closed at once, the first notices nothing`() throws {
        let rig = try BackendRig()
        let first = try rig.connect()
        for _ in 0..<3 {
            let second = try rig.connect()
            #expect(try second.isClosed())
        }
        #expect(rig.device.connectionCount == 1)
        #expect(rig.device.ends.isEmpty)
        #expect(rig.backend.violations == [.busy: 3])
        #expect(rig.backend.lastViolation?.detail.contains("process \(getpid())") == true)
        #expect(try rig.ask(first, .getProtocolFeatures) == 0x1a009)
    }

    @Test func `HI-I1: a front-end that returns before its end was seen is not turned away`() throws
    {
        let rig = try BackendRig()
        do { _ = try rig.connect() }
        let memory = try TestMemory()
        do { _ = try rig.connectWorking(memory) }
        let next = Puppet(try UnixSocket.connect(to: rig.backend.path))
        try rig.turn()
        #expect(try rig.ask(next, .getProtocolFeatures) == 0x1a009)
        #expect(rig.device.connectionCount == 3)
        #expect(rig.device.ends == [.closed, .closed])
    }

    @Test func `HI-I1: a device that closes when its front-end goes serves no one after it`() throws
    {
        let rig = try BackendRig()
        rig.device.onEnd = { $0.close() }
        var first: Puppet? = try rig.connect()
        // The newcomer is accepted in the turn that finds the first one gone.
        let second = Puppet(try UnixSocket.connect(to: rig.backend.path))
        withExtendedLifetime(first) {}
        first = nil
        try rig.turn()
        #expect(rig.device.ends == [.closed])
        #expect(rig.device.connectionCount == 1)
        #expect(!rig.backend.isConnected)
        #expect(try second.isClosed())
    }

    @Test func `VU-R-02: a reply waits for the device`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connectWorking(try TestMemory())
        rig.device.holdsQuiesce = true
        rig.device.positions = [0: 300]
        try puppet.send(.getVringBase, VringState(index: 0, number: 0).encoded)
        try puppet.send(.getProtocolFeatures)
        try rig.turn()
        #expect(rig.device.heldResumes.count == 1)
        #expect(try puppet.socket.receive(limit: 100) == nil, "nothing is read behind it either")
        rig.device.holdsQuiesce = false
        rig.device.heldResumes[0]()
        try rig.turn()
        let base = VringState(index: 0, number: 300).encoded
        let reply = try #require(try puppet.socket.receive(limit: 20))
        #expect(reply.bytes == Message.reply(to: 11, payload: base))
        #expect(try puppet.reply(to: .getProtocolFeatures) == 0x1a009)
        #expect(rig.device.snapshots.last?.rings.map(\.isStarted) == [false, true])
    }

    @Test func `a resume that comes twice or too late does nothing`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connectWorking(try TestMemory())
        rig.device.holdsQuiesce = true
        try puppet.send(.getVringBase, VringState(index: 0, number: 0).encoded)
        try rig.turn()
        let first = rig.device.heldResumes[0]
        first()
        first()
        try puppet.send(.getVringBase, VringState(index: 1, number: 0).encoded)
        try rig.turn()
        first()
        try rig.turn()
        try puppet.discardReplies()
        #expect(rig.device.heldResumes.count == 2)
        #expect(rig.device.snapshots.last?.rings[1].isStarted == true)
        rig.device.heldResumes[1]()
        #expect(rig.device.snapshots.last?.rings[1].isStarted == false)
    }

    @Test func `a device that does not stop in time ends the connection`() throws {
        var limits = BackendLimits()
        limits.quiesce = 20
        let rig = try BackendRig(limits: limits)
        let puppet = try rig.connectWorking(try TestMemory())
        rig.device.holdsQuiesce = true
        try puppet.send(.getVringBase, VringState(index: 0, number: 0).encoded)
        let ended = try rig.turn(until: { !rig.device.ends.isEmpty })
        #expect(ended)
        #expect(rig.device.lastFault == "vu/quiesce")
        #expect(try puppet.isClosed())
    }

    @Test func `HI-D41: a front-end lost while the device stops is seen after it`() throws {
        let rig = try BackendRig()
        do {
            let puppet = try rig.connectWorking(try TestMemory())
            rig.device.holdsQuiesce = true
            let table = try TestMemory()
            try puppet.send(.setMemoryTable, table.table.encoded, [table.file.descriptor])
            try rig.turn()
        }
        try rig.turn()
        #expect(rig.device.ends.isEmpty)
        rig.device.heldResumes[0]()
        try rig.turn()
        #expect(rig.device.ends == [.closed])
    }

    @Test func `VU-B-14: a new call descriptor is signalled after the device has it`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connectWorking(try TestMemory())
        let call = try EventFD()
        let marked = VringDescriptor(index: 1, hasDescriptor: true).encoded
        try puppet.send(.setVringCall, marked, [call.descriptor])
        try rig.turn()
        #expect(rig.device.calls.map(\.ring) == [1])
        #expect(rig.device.snapshots.count == 1)
        #expect(call.drain() == 1)
    }

    @Test func `VU-B-17: the error descriptor of a ring outside memory is signalled`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connect()
        try puppet.negotiate()
        let error = try EventFD()
        let marked = VringDescriptor(index: 0, hasDescriptor: true).encoded
        let memory = try TestMemory()
        let elsewhere = try TestMemory(userAddress: 0x1000)
        try puppet.send(.setVringError, marked, [error.descriptor])
        try puppet.send(.setVringSize, VringState(index: 0, number: 256).encoded)
        try puppet.send(.setVringAddress, elsewhere.ring(0).encoded)
        try puppet.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        try puppet.send(.setVringKick, marked, [try EventFD().descriptor])
        try rig.turn()
        #expect(error.drain() == 1)
        #expect(rig.device.snapshots.last?.rings.isEmpty == true)
    }

    @Test func `HI-D4: a faulty front-end is closed with the id, and the next one served`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connect()
        try puppet.send(bytes("01000000 02000000 00000000"))
        try rig.turn()
        #expect(rig.device.lastFault == "vu/header")
        #expect(rig.backend.violations == [.header: 1])
        #expect(rig.device.refusals.map(\.id) == [.header])
        #expect(try puppet.isClosed())
        #expect(try rig.ask(try rig.connect(), .getProtocolFeatures) == 0x1a009)
    }

    @Test func `HI-D1: half a message ends the connection at the deadline`() throws {
        var limits = BackendLimits()
        limits.deadlines.halfMessage = 20
        let rig = try BackendRig(limits: limits)
        let puppet = try rig.connect()
        try puppet.send(bytes("01000000 01"))
        let ended = try rig.turn(until: { !rig.device.ends.isEmpty })
        #expect(ended)
        #expect(rig.device.lastFault == "vu/stall")
        #expect(try puppet.isClosed())
    }

    @Test func `HI-D39: a front-end that reads no replies is closed at the deadline`() throws {
        var limits = BackendLimits()
        limits.deadlines.unread = 20
        let rig = try BackendRig(limits: limits)
        let puppet = try rig.connect()
        let request = Message(.getFeatures).encoded
        var ended = false
        let deadline = Deadline(milliseconds: 5000)
        while !ended, !deadline.hasPassed {
            // Nobody listens any more once the connection is closed; that is what is waited for.
            _ = try? puppet.send(request)
            try rig.loop.turn(limitMilliseconds: 0)
            ended = !rig.device.ends.isEmpty
        }
        #expect(ended)
        #expect(rig.device.lastFault == "vu/stall")
    }

    @Test func `a front-end that reads its replies late gets all of them`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connect()
        let request = Message(.getProtocolFeatures).encoded
        var sent = 0
        while try puppet.send(request) == request.count {
            sent += 1
            if sent % 50 == 0 { try rig.loop.turn(limitMilliseconds: 0) }
        }
        var received = 0
        let deadline = Deadline(milliseconds: 5000)
        while received < sent, !deadline.hasPassed {
            while try puppet.reply(to: .getProtocolFeatures) != nil { received += 1 }
            try rig.loop.turn(limitMilliseconds: 1)
        }
        #expect(received == sent)
        #expect(rig.device.ends.isEmpty)
    }

    @Test func `HI-D40: one turn serves a bounded number of messages`() throws {
        var limits = BackendLimits()
        limits.messagesPerTurn = 10
        let rig = try BackendRig(limits: limits)
        let puppet = try rig.connect()
        for _ in 0..<35 { try puppet.send(.getFeatures) }
        var replies: [Int] = []
        for _ in 0..<5 {
            try rig.loop.turn(limitMilliseconds: 0)
            var count = 0
            while try puppet.reply(to: .getFeatures) != nil { count += 1 }
            replies.append(count)
        }
        #expect(replies == [10, 10, 10, 5, 0])
    }

    @Test func `the device can end the connection, also while it is told of a change`() throws {
        let rig = try BackendRig()
        rig.device.onChange = { $0.disconnect("no room for 2 regions") }
        let puppet = try rig.connect()
        let memory = try TestMemory()
        try puppet.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        try puppet.send(.getFeatures)
        try rig.turn()
        #expect(rig.device.ends == [.requested("no room for 2 regions")])
        #expect(!rig.backend.isConnected)
        rig.device.onChange = nil
        #expect(try rig.ask(try rig.connect(), .getProtocolFeatures) == 0x1a009)
    }

    @Test func `a device may let go of its back-end whenever it is called`() throws {
        for event in ["change", "quiesce", "end"] {
            let loop = try EventLoop()
            let owner = Owner(dropsAt: event)
            let path = uniquePath()
            owner.backend = try Backend(
                path: path,
                loop: loop,
                offer: BackendOffer(features: SessionRig.features),
                delegate: owner
            )
            let memory = try TestMemory()
            do {
                let puppet = Puppet(try UnixSocket.connect(to: path))
                try puppet.negotiate()
                try puppet.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
                try puppet.start(0, in: memory)
                for _ in 0..<3 { try loop.turn(limitMilliseconds: 0) }
                if event != "change" {
                    try puppet.send(.getVringBase, VringState(index: 0, number: 0).encoded)
                    for _ in 0..<3 { try loop.turn(limitMilliseconds: 0) }
                }
            }
            for _ in 0..<3 { try loop.turn(limitMilliseconds: 0) }
            #expect(owner.backend == nil, "\(event)")
            #expect(unsafe access(path, F_OK) != 0, "the path goes with the back-end")
        }
    }

    @Test func `close ends the connection and removes the path`() throws {
        let rig = try BackendRig()
        let puppet = try rig.connect()
        rig.backend.close()
        rig.backend.close()
        #expect(rig.device.ends == [.requested("the back-end is closed")])
        #expect(try puppet.isClosed())
        #expect(unsafe access(rig.backend.path, F_OK) != 0)
    }

    @Test func `a changed offer counts until the front-end has asked, and for the next one`() throws
    {
        let rig = try BackendRig()
        let first = try rig.connect()
        rig.backend.offeredFeatures = [.version1]
        try first.send(.getFeatures)
        try rig.turn()
        #expect(try first.reply(to: .getFeatures) == 1 << 32 | 1 << 30)
        rig.backend.offeredFeatures = [.version1, .netMAC]
        rig.backend.disconnect("features changed")
        let second = try rig.connect()
        try second.send(.getFeatures)
        try rig.turn()
        #expect(try second.reply(to: .getFeatures) == 1 << 32 | 1 << 30 | 1 << 5)
    }
}

/// A device that drops its back-end in the middle of a call.
private final class Owner: BackendDelegate {
    var backend: Backend?
    let event: String

    init(dropsAt event: String) {
        self.event = event
    }

    func backendConnected(_ backend: Backend) {}

    func backend(_ backend: Backend, quiesce resume: @escaping () -> Void) {
        if event == "quiesce" { self.backend = nil }
        resume()
    }

    func backend(_ backend: Backend, changed description: PeerDescription) {
        if event == "change" { self.backend = nil }
    }

    func backend(_ backend: Backend, callChanged ring: Int, to call: FileDescriptor?) {}

    func backend(_ backend: Backend, disconnected reason: DisconnectReason) {
        if event == "end" { self.backend = nil }
    }

    func backend(_ backend: Backend, nextAvailableOf ring: Int) -> UInt16? { 3 }
}
