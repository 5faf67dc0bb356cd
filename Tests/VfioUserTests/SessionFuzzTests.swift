import GuestMemory
import HostSystem
import Testing
import VfioUser

@Suite struct SessionFuzzTests {
    /// Numbers that look random and are the same in every run.
    private struct Numbers: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
    }

    /// Good payloads, to be spoilt.
    private func samples() -> [(Command, [UInt8])] {
        let access = RegionAccess(offset: 0x10, region: 0, count: 4).encoded
        let entry = MultiWrite.Entry(
            access: RegionAccess(offset: 0, region: 0, count: 4),
            data: [1, 2, 3, 4]
        )
        return [
            (.version, SessionRig.proposal),
            (
                .dmaMap,
                DMAMap(flags: [.readable, .writable], address: 0x1000, length: 0x1000).encoded
            ),
            (.dmaUnmap, DMAUnmap(address: 0x1000, length: 0x1000).encoded),
            (.deviceGetInfo, DeviceInfo().encoded),
            (.deviceGetRegionInfo, RegionInfo(argumentSize: 4096, index: 2).encoded),
            (.deviceGetRegionIOFDs, RegionDescriptors(argumentSize: 4096, index: 0).encoded),
            (.deviceGetIRQInfo, InterruptInfo(index: 2).encoded),
            (.deviceSetIRQs, InterruptSet(flags: [.none, .trigger], index: .msix).encoded),
            (.regionRead, access), (.regionWrite, access + [1, 2, 3, 4]),
            (.dmaRead, DMAAccess(address: 0, count: 4).encoded), (.deviceReset, []),
            (.regionWriteMulti, MultiWrite(entries: [entry, entry]).encoded),
            (.deviceFeature, DeviceFeature(flags: DeviceFeature.get | 1).encoded),
        ]
    }

    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func `HI-E5, VFU-H-03: no sequence of spoilt messages does more than be refused`(
        _ seed: UInt64
    ) throws {
        var numbers = Numbers(state: seed &* 0x9e37_79b9_7f4a_7c15)
        let rig = try SessionRig()
        try rig.function.shareWindow([0..<0x4000])
        let file = try MemoryFile(name: "fuzz", size: 0x4000)
        let event = try EventFD()
        let samples = samples()
        for _ in 0..<4000 {
            var (command, payload) = samples[Int.random(in: samples.indices, using: &numbers)]
            for _ in 0..<Int.random(in: 0...3, using: &numbers) where !payload.isEmpty {
                let at = Int.random(in: payload.indices, using: &numbers)
                payload[at] =
                    [0, 1, 0x7f, 0x80, 0xff, UInt8.random(in: 0...255, using: &numbers)]
                    .randomElement(using: &numbers) ?? 0
            }
            if Int.random(in: 0..<8, using: &numbers) == 0 {
                payload = Array(payload.prefix(Int.random(in: 0...payload.count, using: &numbers)))
            }
            if Int.random(in: 0..<16, using: &numbers) == 0 { command = .deviceSetIRQs }
            let all = [
                [], [file.descriptor], [event.descriptor], [event.descriptor, event.descriptor],
            ]
            let step = rig.send(
                command.rawValue,
                payload,
                all.randomElement(using: &numbers) ?? [],
                flags: MessageHeader.Flags(
                    rawValue: Int.random(in: 0..<32, using: &numbers) == 0
                        ? UInt32.random(in: 0...0x7f, using: &numbers) : 0
                )
            )
            #expect(!step.closes)
            if let reply = step.reply {
                let header = try #require(MessageHeader(reply))
                #expect(header.isReply && Int(header.messageSize) == reply.count)
                #expect(header.flags.contains(.error) == (header.error != 0))
                #expect(!header.flags.contains(.error) || reply.count == MessageHeader.size)
            }
            if Int.random(in: 0..<64, using: &numbers) == 0 {
                rig.function.fire(Int.random(in: 0..<5, using: &numbers))
                rig.session.readDMA(numbers.next(), 16) { _ in }
                _ = rig.session.nextDMA()
            }
        }
        rig.session.end()
        #expect(rig.memory.all.isEmpty)
    }

    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func `HI-E4, VFU-H-05: bytes of no protocol end one connection and no other`(
        _ seed: UInt64
    ) throws {
        var numbers = Numbers(state: seed &* 0x9e37_79b9_7f4a_7c15)
        let limits = ServerLimits(deadlines: .init(halfMessage: 1, unread: 1))
        let rig = try ServerRig(limits: limits)
        let neighbours = try ServerRig()
        let neighbour = try neighbours.negotiated()
        for round in 0..<40 {
            let caller = try (round % 2 == 0 ? rig.connect() : rig.negotiated())
            var noise: [UInt8] = []
            for _ in 0..<Int.random(in: 1...200, using: &numbers) {
                noise.append(UInt8.random(in: 0...255, using: &numbers))
            }
            try caller.say(noise)
            let deadline = Deadline(milliseconds: 5000)
            while rig.server.isConnected, !deadline.hasPassed {
                try rig.turns(1, milliseconds: 1)
            }
            #expect(!rig.server.isConnected)
        }
        #expect(try neighbour.ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }
}
