import Glibc
import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

/// Front-ends that come, go and misbehave at every point of a session (HI section I, rule R4).
@Suite struct LifecycleTests {
    private struct Part {
        var bytes: [UInt8]
        var descriptors: [FileDescriptor]
    }

    /// A whole session as bytes: from the first request to a working pair and its end.
    private func session(_ memory: TestMemory, _ event: EventFD) -> [Part] {
        func part(
            _ request: Request,
            _ payload: [UInt8] = [],
            _ descriptors: [FileDescriptor] = []
        ) -> Part {
            Part(
                bytes: Message(request, needsReply: true, payload: payload).encoded,
                descriptors: descriptors
            )
        }
        let features = SessionRig.features.union(.vhostUserProtocol).rawValue
        var parts = [
            part(.getFeatures),
            part(.setProtocolFeatures, NumberPayload.encode(0x1a009)),
            part(.setFeatures, NumberPayload.encode(features)),
            part(.setMemoryTable, memory.table.encoded, [memory.file.descriptor]),
        ]
        for ring in [0, 1] as [UInt32] {
            let marked = VringDescriptor(index: UInt64(ring), hasDescriptor: true).encoded
            parts += [
                part(.setVringSize, VringState(index: ring, number: 256).encoded),
                part(.setVringAddress, memory.ring(ring).encoded),
                part(.setVringCall, marked, [event.descriptor]),
                part(.setVringKick, marked, [event.descriptor]),
                part(.setVringEnable, VringState(index: ring, number: 1).encoded),
            ]
        }
        parts.append(part(.setMemoryTable, memory.table.encoded, [memory.file.descriptor]))
        parts.append(part(.getVringBase, VringState(index: 0, number: 0).encoded))
        parts.append(part(.resetDevice))
        return parts
    }

    @Test func `HI-I1, HI-D41: a front-end lost after any byte leaves nothing open`() throws {
        let rig = try BackendRig()
        let memory = try TestMemory()
        let event = try EventFD()
        let parts = session(memory, event)
        let total = parts.reduce(0) { $0 + $1.bytes.count }
        var ends = 0
        for cut in stride(from: 0, through: total, by: 3) {
            do {
                let puppet = Puppet(try UnixSocket.connect(to: rig.backend.path))
                var left = cut
                for part in parts where left > 0 {
                    let bytes = Array(part.bytes.prefix(left))
                    try puppet.send(bytes, part.descriptors)
                    left -= bytes.count
                    // Some losses hit a back-end that has seen all of it, others one that has not.
                    if cut % 2 == 0 { try rig.loop.turn(limitMilliseconds: 0) }
                }
            }
            ends += 1
            let ended = try rig.turn(until: { rig.device.ends.count == ends })
            #expect(ended, "cut at \(cut)")
            #expect(openCount(sharing: memory.file.descriptor) == 1, "cut at \(cut)")
            #expect(openCount(sharing: event.descriptor) == 1, "cut at \(cut)")
        }
        let whole = try rig.connectWorking(memory)
        #expect(rig.device.snapshots.last?.rings.allSatisfy(\.isStarted) == true)
        withExtendedLifetime(whole) {}
    }

    @Test func `HI-I3, VU-B-21: a thousand reconnects leave no more descriptors than the first`()
        async
    {
        await #expect(processExitsWith: .success) {
            let rig = try BackendRig()
            let memory = try TestMemory()
            var after100 = 0
            for round in 1...1000 {
                do { _ = try rig.connectWorking(memory) }
                try rig.turn()
                try #require(rig.device.ends.count == round)
                if round == 100 { after100 = openDescriptorCount() }
            }
            try #require(openDescriptorCount() <= after100)
            try #require(rig.backend.violations.isEmpty)
        }
    }

    @Test func `HI-D7, HI-D10, HI-D13, HI-D19: 10,000 refusals open nothing and map nothing`() async
    {
        await #expect(processExitsWith: .success) {
            var rig = SessionRig()
            rig.negotiate()
            let memory = try TestMemory()
            rig.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
            let region = SingleRegionPayload(memory.region).encoded
            let marked = VringDescriptor(index: 0, hasDescriptor: true).encoded
            var after100 = (0, 0)
            for round in 1...10_000 {
                let copies = try (0..<3).map { _ in try memory.file.descriptor.duplicate() }
                let steps = [
                    rig.send(.setOwner, [], [copies[0]], needsReply: true),
                    rig.send(.setVringKick, marked, [copies[1]], needsReply: true),
                    rig.send(.addRegion, region, [copies[2]], needsReply: true),
                    rig.state(.setVringSize, 0, 255, needsReply: true),
                ]
                let ids = steps.map { $0.refused?.id }
                try #require(
                    ids == [.descriptors, .descriptorKind, .memoryOverlap, .ringSize]
                )
                if round == 100 { after100 = (openDescriptorCount(), memoryFileMappingCount()) }
            }
            try #require(openDescriptorCount() <= after100.0)
            try #require(memoryFileMappingCount() == after100.1)
        }
    }

    @Test func `HI-D4, HI-D38: 10,000 faulty and surplus connections open nothing`() async {
        await #expect(processExitsWith: .success) {
            let rig = try BackendRig()
            var after100 = 0
            for round in 1...10_000 {
                let puppet = Puppet(try UnixSocket.connect(to: rig.backend.path))
                let surplus = Puppet(try UnixSocket.connect(to: rig.backend.path))
                try puppet.send([1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
                while rig.device.ends.count < round { try rig.turn() }
                try #require(rig.device.lastFault == "vu/header")
                if round == 100 { after100 = openDescriptorCount() }
                withExtendedLifetime(surplus) {}
            }
            try #require(openDescriptorCount() <= after100)
        }
    }

    @Test func `HI-I19: without free descriptors accepting pauses, and goes on later`() async {
        await #expect(processExitsWith: .success) {
            var limits = BackendLimits()
            limits.acceptPause = 20
            let rig = try BackendRig(limits: limits)
            let socket = try UnixSocket.connect(to: rig.backend.path)
            var fillers = takeAllDescriptors(socket.descriptor)
            let end = Deadline(milliseconds: 100)
            var turns = 0
            while !end.hasPassed {
                try rig.loop.turn(limitMilliseconds: 10)
                turns += 1
            }
            fillers.removeAll()
            try #require(rig.device.refusals.first?.id == .noDescriptors)
            try #require(turns < 50, "the loop spins")
            let served = try rig.turn(until: { rig.backend.isConnected })
            try #require(served)
        }
    }

    @Test func `HI-D9: descriptors that find no place end the connection`() async {
        await #expect(processExitsWith: .success) {
            let rig = try BackendRig()
            let puppet = try rig.connect()
            let event = try EventFD()
            let marked = VringDescriptor(index: 0, hasDescriptor: true).encoded
            try puppet.send(.setVringKick, marked, [event.descriptor])
            let fillers = takeAllDescriptors(event.descriptor)
            try rig.turn()
            try #require(rig.device.lastFault == "vu/truncated")
            withExtendedLifetime(fillers) {}
        }
    }

    @Test func `HI-D37: random bytes end a connection or wait, and the next one is served`() throws
    {
        let rig = try BackendRig()
        var random = SeededGenerator(seed: 7)
        let event = try EventFD()
        for _ in 0..<300 {
            let puppet = Puppet(try UnixSocket.connect(to: rig.backend.path))
            for _ in 0..<10 {
                var bytes = (0..<Int(random.next() % 40 + 1)).map { _ in
                    UInt8(truncatingIfNeeded: random.next())
                }
                // Headers that pass the first check get further.
                if bytes.count >= 12, random.chance(80) {
                    bytes.replaceSubrange(1..<8, with: [0, 0, 0, 9, 0, 0, 0])
                    bytes.replaceSubrange(9..<12, with: [0, 0, 0])
                    bytes[0] %= 48
                }
                let descriptors = random.chance(20) ? [event.descriptor] : []
                // A back-end that has closed takes no more; that is an outcome here.
                _ = try? puppet.send(bytes, descriptors)
                try rig.loop.turn(limitMilliseconds: 0)
            }
        }
        let gone = try rig.turn(until: { !rig.backend.isConnected })
        #expect(gone)
        #expect(openCount(sharing: event.descriptor) == 1)
        #expect(try rig.ask(try rig.connect(), .getProtocolFeatures) == 0x1a009)
    }

    @Test func `HI-I5: after any time without a front-end the next one is served`() throws {
        var limits = BackendLimits()
        limits.deadlines = Connection.Deadlines(halfMessage: 5, unread: 5)
        limits.quiesce = 5
        let rig = try BackendRig(limits: limits)
        let end = Deadline(milliseconds: 50)
        while !end.hasPassed { try rig.loop.turn(limitMilliseconds: 10) }
        let puppet = try rig.connect()
        usleep(20_000)
        try rig.turn()
        #expect(try rig.ask(puppet, .getProtocolFeatures) == 0x1a009)
        #expect(rig.device.ends.isEmpty, "silence between messages is no fault")
    }
}

/// Opens descriptors until this process may have no more.
private func takeAllDescriptors(_ one: FileDescriptor) -> [FileDescriptor] {
    var limit = rlimit(rlim_cur: 200, rlim_max: 200)
    // RLIMIT_NOFILE, whose macro does not import.
    _ = unsafe setrlimit(__rlimit_resource_t(7), &limit)
    var taken: [FileDescriptor] = []
    while let next = try? one.duplicate() { taken.append(next) }
    return taken
}
