import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

/// Requests in orders that nobody sends (HI-D37). Every run is a seed, so that it can be repeated.
@Suite struct SessionFuzzTests {
    private struct Fuzzer {
        var random: SeededGenerator
        let memories: [TestMemory]
        let events: [EventFD]

        init(seed: UInt64) throws {
            random = SeededGenerator(seed: seed)
            memories = [
                try TestMemory(), try TestMemory(guestAddress: 1 << 32, userAddress: 1 << 20),
                try TestMemory(guestAddress: 0x8_0000, userAddress: 1 << 30),
            ]
            events = [try EventFD(), try EventFD()]
        }

        mutating func pick<Item>(_ items: [Item]) -> Item {
            items[Int(random.next() % UInt64(items.count))]
        }

        mutating func ring() -> UInt32 {
            random.chance(90)
                ? UInt32(random.next() % 4) : UInt32(truncatingIfNeeded: random.next())
        }

        mutating func descriptors(_ usual: Int) throws -> [FileDescriptor] {
            let count = random.chance(90) ? usual : Int(random.next() % 4)
            return try (0..<count).map { _ in
                random.chance(50)
                    ? try pick(events).descriptor.duplicate()
                    : try pick(memories).file.descriptor.duplicate()
            }
        }

        mutating func garbage(_ count: Int) -> [UInt8] {
            (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }

        mutating func message() throws -> Message {
            let rule = pick(MessageTable.rules)
            var (payload, files) = try plausible(rule)
            if random.chance(5) { payload = garbage(Int(random.next() % 64)) }
            if random.chance(5) { files = try descriptors(1) }
            var message = Message(
                rule.request,
                needsReply: random.chance(70),
                payload: payload,
                descriptors: files
            )
            if random.chance(2) {
                message.header.request = UInt32(truncatingIfNeeded: random.next())
            }
            if random.chance(1) { message.header.flags = UInt32(truncatingIfNeeded: random.next()) }
            if random.chance(2) { message.hadLateDescriptors = true }
            return message
        }

        private mutating func plausible(
            _ rule: MessageRule
        ) throws -> ([UInt8], [FileDescriptor]) {
            let memory = pick(memories)
            switch rule.request {
            case .setMemoryTable:
                let chosen = memories.filter { _ in random.chance(50) }
                let files = try chosen.map { try $0.file.descriptor.duplicate() }
                return (MemoryTablePayload(chosen.map(\.region)).encoded, files)
            case .addRegion:
                let file = try memory.file.descriptor.duplicate()
                return (SingleRegionPayload(memory.region).encoded, [file])
            case .removeRegion: return (SingleRegionPayload(memory.region).encoded, [])
            case .setVringAddress: return (memory.ring(ring()).encoded, [])
            case .setVringKick, .setVringCall, .setVringError:
                let has = random.chance(80)
                let payload = VringDescriptor(index: UInt64(ring()), hasDescriptor: has).encoded
                return (payload, has ? [try pick(events).descriptor.duplicate()] : [])
            case .setVringSize, .setVringBase, .setVringEnable, .getVringBase:
                let value = pick([0, 1, 1, 2, 64, 256, 300, 65535, 65536])
                return (VringState(index: ring(), number: UInt32(value)).encoded, [])
            case .setFeatures:
                let some = random.chance(80) ? SessionRig.features.rawValue : random.next()
                return (NumberPayload.encode(some | (random.next() & (1 << 30))), [])
            case .setProtocolFeatures:
                return (NumberPayload.encode(random.chance(95) ? 0x1a009 : random.next()), [])
            case .setStatus: return (NumberPayload.encode(pick([0, 1, 3, 8, 0xb, 0xf, 0x1ff])), [])
            default:
                guard case .exactly(let size) = rule.payload else { return (garbage(16), []) }
                return (garbage(size), [])
            }
        }
    }

    @Test(arguments: 0..<40 as Range<UInt64>)
    func `HI-D37: any order of requests leaves a session whose rings lie in its memory`(
        _ seed: UInt64
    ) throws {
        var fuzzer = try Fuzzer(seed: seed)
        var started = 0
        for _ in 0..<4 {
            var rig = SessionRig(offer: BackendOffer(features: SessionRig.features, queuePairs: 2))
            rig.negotiate()
            for _ in 0..<250 {
                rig.positions[Int(fuzzer.random.next() % 4)] = UInt16(
                    truncatingIfNeeded: fuzzer.random.next()
                )
                let message = try fuzzer.message()
                let step = rig.send(message)
                checkReply(step, message)
                try checkState(rig.session.state)
                if fuzzer.random.chance(30) { _ = rig.session.publish() }
                started += rig.session.state.description.rings.filter(\.isStarted).count
                if step.close != nil { break }
            }
        }
        for memory in fuzzer.memories { #expect(openCount(sharing: memory.file.descriptor) == 1) }
        for event in fuzzer.events { #expect(openCount(sharing: event.descriptor) == 1) }
        withExtendedLifetime(started) {}
    }

    private func checkReply(_ step: BackendSession.Step, _ message: Message) {
        #expect(!step.needsQuiesce)
        if step.close != nil { #expect(step.reply == nil) }
        guard let reply = step.reply else { return }
        let header = MessageHeader(reply)
        #expect(header?.request == message.header.request)
        #expect(header?.flags == 5)
        #expect(header.map { Int($0.payloadSize) } == reply.count - 12)
    }

    private func checkState(_ state: BackendState) throws {
        let peer = state.description
        for (low, high) in zip(peer.regions, peer.regions.dropFirst()) {
            #expect(low.guestAddress + low.size <= high.guestAddress)
        }
        for ring in peer.rings {
            let areas = [
                (ring.descriptorArea, 16 * UInt64(ring.size)),
                (ring.driverArea, 6 + 2 * UInt64(ring.size)),
                (ring.deviceArea, 6 + 8 * UInt64(ring.size)),
            ]
            for (start, length) in areas {
                let isInside = peer.regions.contains {
                    start >= $0.guestAddress
                        && start + length <= $0.guestAddress + $0.size
                }
                #expect(isInside)
            }
            #expect(ring.kick?.isEventFD != false)
        }
    }
}
