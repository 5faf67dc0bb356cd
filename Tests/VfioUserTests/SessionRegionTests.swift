import HostSystem
import PCI
import Testing
import VfioUser
import Virtio

@Suite struct SessionRegionTests {
    private func info(_ rig: SessionRig, _ index: UInt32, room: UInt32 = 32) throws -> [UInt8] {
        try rig.answer(
            .deviceGetRegionInfo,
            RegionInfo(argumentSize: room, index: index).encoded
        )
    }

    private func read(_ rig: SessionRig, _ region: UInt32, _ offset: UInt64, _ count: UInt32) throws
        -> [UInt8]
    {
        let access = RegionAccess(offset: offset, region: region, count: count)
        let reply = try rig.answer(.regionRead, access.encoded)
        try #require(RegionAccess(reply) == access)
        return Array(reply.dropFirst(RegionAccess.size))
    }

    private func write(_ rig: SessionRig, _ region: UInt32, _ offset: UInt64, _ bytes: [UInt8])
        throws
    {
        let access = RegionAccess(offset: offset, region: region, count: UInt32(bytes.count))
        #expect(try rig.answer(.regionWrite, access.encoded + bytes) == access.encoded)
    }

    private func refusal(
        _ rig: SessionRig,
        _ region: UInt32,
        _ offset: UInt64,
        _ count: UInt32,
        writing bytes: [UInt8]? = nil
    ) throws -> SessionRig.Refused? {
        let access = RegionAccess(offset: offset, region: region, count: count).encoded
        return try rig.refusal(bytes == nil ? .regionRead : .regionWrite, access + (bytes ?? []))
    }

    @Test func `VFU-S-20: a PCI function with nine regions and five interrupt indices`() throws {
        let rig = try SessionRig()
        for size: UInt32 in [16, 32, .max] {
            let reply = try rig.answer(.deviceGetInfo, DeviceInfo(argumentSize: size).encoded)
            #expect(
                DeviceInfo(reply)
                    == DeviceInfo(flags: [.pci, .reset], regionCount: 9, interruptCount: 5)
            )
        }
        let small = DeviceInfo(argumentSize: 15).encoded
        #expect(try rig.refusal(.deviceGetInfo, small) == .init(.argument))
    }

    @Test func `VFU-S-21: every region is answered, and what is not there is empty`() throws {
        let rig = try SessionRig()
        for index in 0..<9 as Range<UInt32> {
            let reply = try info(rig, index)
            let region = try #require(RegionInfo(reply))
            #expect(reply.count == 32 && region.argumentSize == 32 && region.index == index)
            switch index {
            case 0: #expect(region.length == FakeFunction.registerBytes)
            case 2, 4: #expect(region.length == FakeFunction.windowBytes)
            case 7: #expect(region.length == 256)
            default: #expect(region.length == 0 && region.flags.isEmpty)
            }
            if region.length > 0 { #expect(region.flags == [.read, .write]) }
        }
    }

    @Test func `VFU-S-21, HI-E14: regions that cannot be, and small answers, are refused`() throws {
        let rig = try SessionRig()
        for index: UInt32 in [9, 10, 0x8000_0000, .max] {
            let request = RegionInfo(index: index).encoded
            #expect(try rig.refusal(.deviceGetRegionInfo, request) == .init(.argument))
        }
        for size: UInt32 in [0, 16, 31] {
            let request = RegionInfo(argumentSize: size, index: 0).encoded
            #expect(try rig.refusal(.deviceGetRegionInfo, request) == .init(.argument))
        }
        let garbage = RegionInfo(
            argumentSize: 32,
            flags: .init(rawValue: .max),
            index: 0,
            capabilityOffset: .max,
            length: .max,
            offset: .max
        )
        #expect(try rig.answer(.deviceGetRegionInfo, garbage.encoded) == info(rig, 0))
    }

    @Test func `VFU-S-22, HI-E14: who has too little room is told how much, and no more`() throws {
        let rig = try SessionRig()
        try rig.function.shareWindow([0..<0x1000, 0x4000..<0x8000])
        for room: UInt32 in [32, 48, 79] {
            let request = RegionInfo(argumentSize: room, index: 2).encoded
            let step = rig.send(.deviceGetRegionInfo, request)
            let reply = try #require(step.reply)
            #expect(reply.count == MessageHeader.size + 32 && step.descriptors.isEmpty)
            let region = try #require(RegionInfo(Array(reply.dropFirst(MessageHeader.size))))
            #expect(region.argumentSize == 80 && region.flags == [.read, .write])
            #expect(region.capabilityOffset == 0 && region.length == FakeFunction.windowBytes)
        }
    }

    @Test func `VFU-S-23, VFU-S-25: a mappable region comes with one file`() throws {
        let rig = try SessionRig()
        try rig.function.shareWindow([0..<0x1000, 0x4000..<0x8000])
        for room: UInt32 in [80, 4096] {
            let request = RegionInfo(argumentSize: room, index: 2).encoded
            let step = rig.send(.deviceGetRegionInfo, request)
            let reply = Array(try #require(step.reply).dropFirst(MessageHeader.size))
            let region = try #require(RegionInfo(reply))
            #expect(region.flags == [.read, .write, .mappable, .capabilities])
            #expect(region.capabilityOffset == 32 && region.argumentSize == 80)
            #expect(reply.count == 80 && step.descriptors.count == 1)
            #expect(SparseAreas(reply, at: 32)?.areas == [0..<0x1000, 0x4000..<0x8000])
            let identity = try #require(step.descriptors.first).status().identity
            #expect(try identity == rig.function.windowMemory.descriptor.status().identity)
        }
        #expect(
            rig.send(.deviceGetRegionInfo, RegionInfo(argumentSize: 96, index: 0).encoded)
                .descriptors.isEmpty
        )
    }

    @Test func `VFU-S-24: areas are whole pages inside region and file`() throws {
        func areas(_ areas: [Range<UInt64>], offset: UInt64 = 0) throws -> [Range<UInt64>]? {
            let rig = try SessionRig()
            try rig.function.shareWindow(areas, offset: offset)
            let reply = try info(rig, 2, room: 4096)
            return SparseAreas(reply, at: 32)?.areas
        }
        #expect(try areas([0x800..<0x2800]) == [0x1000..<0x2000])
        #expect(try areas([0xf000..<0x20000]) == [0xf000..<0x10000])
        #expect(try areas([0x20000..<0x30000]) == nil)
        #expect(try areas([1..<4095]) == nil)
        #expect(try areas([]) == nil)
        #expect(try areas([0..<0x10000], offset: 0x8000) == [0..<0x8000])
        #expect(try areas([0..<0x10000], offset: 0x10000) == nil)
        #expect(try areas([0..<0x10000], offset: 0x800) == nil)
        #expect(try areas([0..<0x1000, 0x1000..<0x2000]) == [0..<0x1000, 0x1000..<0x2000])
    }

    @Test func `VFU-S-26: doorbells are eventfds for who asks`() throws {
        let rig = try SessionRig()
        let request = RegionDescriptors(argumentSize: 4096, index: 0).encoded
        let step = rig.send(.deviceGetRegionIOFDs, request)
        let reply = Array(try #require(step.reply).dropFirst(MessageHeader.size))
        let head = try #require(RegionDescriptors(reply))
        #expect(head.count == 2 && head.argumentSize == 96 && reply.count == 96)
        #expect(step.descriptors.count == 2)
        for index in 0..<2 {
            let event = try #require(RegionEvent(Array(reply[(16 + 40 * index)...])))
            #expect(event.offset == FakeFunction.doorbells + UInt64(4 * index))
            #expect(event.type == RegionEvent.eventType && event.flags.isEmpty)
            #expect(event.descriptorIndex == UInt32(index) && event.length == 2)
            EventFD.signal(step.descriptors[index].rawValue)
            for doorbell in rig.session.doorbells { rig.session.ring(doorbell) }
            #expect(rig.function.writes.map(\.offset) == [event.offset])
            rig.function.writes = []
        }
    }

    @Test func `VFU-S-26: a region without doorbells has none, small room is told`() throws {
        let rig = try SessionRig()
        for index in [1, 2, 6, 7, 8] as [UInt32] {
            let request = RegionDescriptors(argumentSize: 4096, index: index).encoded
            let reply = try rig.answer(.deviceGetRegionIOFDs, request)
            #expect(RegionDescriptors(reply)?.count == 0 && reply.count == 16)
        }
        let small = RegionDescriptors(argumentSize: 95, index: 0).encoded
        let step = rig.send(.deviceGetRegionIOFDs, small)
        let reply = Array(try #require(step.reply).dropFirst(MessageHeader.size))
        #expect(RegionDescriptors(reply)?.argumentSize == 96 && reply.count == 16)
        #expect(RegionDescriptors(reply)?.count == 0 && step.descriptors.isEmpty)
    }

    @Test func `VFU-S-26: never more eventfds than the client takes`() throws {
        let rig = try SessionRig(proposal: [0, 0, 0, 0])
        let step = rig.send(
            .deviceGetRegionIOFDs,
            RegionDescriptors(argumentSize: 4096, index: 0).encoded
        )
        #expect(step.descriptors.count == 1)
    }

    @Test func `VFU-S-23: who takes no descriptors maps nothing`() throws {
        var none = Capabilities()
        none.messageDescriptors = 0
        none.transferSize = 1 << 20
        let rig = try SessionRig(proposal: Version(capabilities: none).encoded)
        try rig.function.shareWindow([0..<0x1000])
        let request = RegionInfo(argumentSize: 4096, index: 2).encoded
        let step = rig.send(.deviceGetRegionInfo, request)
        let reply = Array(try #require(step.reply).dropFirst(MessageHeader.size))
        #expect(step.descriptors.isEmpty && RegionInfo(reply)?.flags == [.read, .write])
        let bells = RegionDescriptors(argumentSize: 4096, index: 0).encoded
        #expect(rig.send(.deviceGetRegionIOFDs, bells).descriptors.isEmpty)
    }

    @Test func `VFU-S-44: a bundle of more than 256 writes is refused as a whole`() throws {
        let rig = try SessionRig()
        func bundle(_ count: Int) -> [UInt8] {
            let one = MultiWrite.Entry(
                access: RegionAccess(offset: 0, region: 0, count: 4),
                data: [1, 2, 3, 4]
            )
            return MultiWrite(entries: Array(repeating: one, count: count)).encoded
        }
        #expect(try rig.refusal(.regionWriteMulti, bundle(256)) == nil)
        #expect(rig.function.writes.count == 256)
        #expect(try rig.refusal(.regionWriteMulti, bundle(257)) == .init(.command))
        #expect(rig.function.writes.count == 256)
    }

    @Test func `HI-E17: questions for io descriptors that cannot be are refused`() throws {
        let rig = try SessionRig()
        func refusal(_ request: RegionDescriptors) throws -> SessionRig.Refused? {
            try rig.refusal(.deviceGetRegionIOFDs, request.encoded)
        }
        #expect(try refusal(RegionDescriptors(argumentSize: 15, index: 0)) == .init(.argument))
        #expect(try refusal(RegionDescriptors(flags: 1, index: 0)) == .init(.argument))
        #expect(try refusal(RegionDescriptors(index: 0, count: 1)) == .init(.argument))
        #expect(try refusal(RegionDescriptors(index: 9)) == .init(.argument))
        #expect(try refusal(RegionDescriptors(index: .max)) == .init(.argument))
    }

    @Test func `VFU-S-40, HI-E15: accesses that leave their region are refused`() throws {
        let rig = try SessionRig()
        let end = FakeFunction.registerBytes
        for (region, offset, count) in [
            (0, end, 1), (0, end - 3, 4), (0, .max, 1), (0, .max, .max), (0, 1 << 63, 4),
            (0, 0, UInt32(end) + 1), (1, 0, 1), (6, 0, 4), (8, 0, 1), (9, 0, 0), (9, 0, 4),
            (.max, 0, 4), (7, 256, 1), (7, 253, 4), (7, 0, 257), (2, 0, 0x10001),
            (0, end + 1, 0),
        ] as [(UInt32, UInt64, UInt32)] {
            #expect(try refusal(rig, region, offset, count) == .init(.regionRange))
            let bytes = [UInt8](repeating: 1, count: Int(min(count, 64)))
            #expect(
                try refusal(rig, region, offset, count, writing: bytes) == .init(.regionRange)
            )
        }
        #expect(rig.function.reads.isEmpty && rig.function.writes.isEmpty)
    }

    @Test func `VFU-S-40, HI-E15: a write has as many bytes as it states`() throws {
        let rig = try SessionRig()
        for (count, bytes) in [(4, 3), (4, 5), (0, 1), (1, 0), (0x10_0001, 16)] as [(UInt32, Int)] {
            let data = [UInt8](repeating: 9, count: bytes)
            #expect(try refusal(rig, 0, 0, count, writing: data) == .init(.regionRange))
        }
        #expect(rig.function.writes.isEmpty)
    }

    @Test func `HI-E15: a count of 0 is answered with no bytes`() throws {
        let rig = try SessionRig()
        #expect(try read(rig, 0, 0, 0).isEmpty)
        #expect(try read(rig, 0, FakeFunction.registerBytes, 0).isEmpty)
        #expect(try read(rig, 1, 0, 0).isEmpty)
        try write(rig, 0, 4, [])
        #expect(rig.function.reads.isEmpty && rig.function.writes.isEmpty)
    }

    @Test func `VFU-S-40: registers are accessed as wide as the message says`() throws {
        let rig = try SessionRig()
        for (offset, count) in [(1, 1), (2, 2), (4, 4), (3, 2), (5, 4)] as [(UInt64, Int)] {
            try write(rig, 0, offset, [UInt8](repeating: 7, count: count))
            let last = try #require(rig.function.writes.last)
            #expect(last.offset == offset && last.width.rawValue == count)
        }
        #expect(rig.function.writes.count == 5)
        rig.function.writes = []
        try write(rig, 0, 8, [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(rig.function.writes.map(\.width) == [.long, .long])
        #expect(rig.function.writes.map(\.value) == [0x0403_0201, 0x0807_0605])
        #expect(try read(rig, 0, 8, 8) == [1, 2, 3, 4, 5, 6, 7, 8])
        rig.function.writes = []
        try write(rig, 0, 1, [UInt8](repeating: 0, count: 10))
        #expect(rig.function.writes.map(\.width) == [.byte, .word, .long, .word, .byte])
        #expect(rig.function.writes.map(\.offset) == [1, 2, 4, 8, 10])
    }

    @Test func `VFU-S-43: what can be mapped can also be accessed by message`() throws {
        let rig = try SessionRig()
        try rig.function.shareWindow([0..<FakeFunction.windowBytes])
        let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }
        try write(rig, 2, 0x101, bytes)
        #expect(try read(rig, 2, 0x101, 5000) == bytes)
        #expect(try read(rig, 2, 0, UInt32(FakeFunction.windowBytes)).count == 0x10000)
    }

    @Test func `VFU-S-41: configuration space is read in one piece, from anywhere`() throws {
        let rig = try SessionRig()
        let all = try read(rig, 7, 0, 256)
        #expect(all.prefix(4) == [0xf4, 0x1a, 0x7f, 0x10])
        for offset in [0, 1, 2, 3, 61, 255] {
            for count in [1, 2, 3, 4, 5, 7, 8, 64] where offset + count <= 256 {
                let part = try read(rig, 7, UInt64(offset), UInt32(count))
                #expect(part == Array(all[offset..<(offset + count)]))
            }
        }
    }

    @Test func `VFU-S-42: BARs and ROM tell their size, types stay`() throws {
        let rig = try SessionRig()
        for offset in stride(from: 0x10, to: 0x28, by: 4) + [0x30] {
            try write(rig, 7, UInt64(offset), [0xff, 0xff, 0xff, 0xff])
        }
        func register(_ offset: UInt64) throws -> UInt32 {
            AccessWidth.long.value(of: try read(rig, 7, offset, 4))
        }
        #expect(try register(0x10) == ~UInt32(FakeFunction.registerBytes - 1))
        #expect(try register(0x14) == 0)
        #expect(try register(0x18) == ~UInt32(FakeFunction.windowBytes - 1) | 0xc)
        #expect(try register(0x1c) == .max)
        #expect(try register(0x20) == register(0x18) && register(0x24) == .max)
        try write(rig, 7, 0x30, [0, 0xf8, 0xff, 0xff])
        #expect(try register(0x30) == 0)
    }

    @Test func `VFU-S-44: bundled writes happen in order, up to the first bad one`() throws {
        let rig = try SessionRig()
        func entry(_ offset: UInt64, _ bytes: [UInt8], _ count: UInt32? = nil) -> MultiWrite.Entry {
            let access = RegionAccess(
                offset: offset,
                region: 0,
                count: count ?? UInt32(bytes.count)
            )
            return MultiWrite.Entry(access: access, data: bytes)
        }
        func completed(_ entries: [MultiWrite.Entry]) throws -> UInt8 {
            let bundle = MultiWrite(entries: entries).encoded
            let reply = try rig.answer(.regionWriteMulti, bundle)
            #expect(reply.count == 8 && reply.dropFirst().allSatisfy { $0 == 0 })
            return try #require(reply.first)
        }
        #expect(
            try completed([entry(0, [1]), entry(2, [2, 3]), entry(8, [4, 5, 6, 7, 8, 9, 10, 11])])
                == 3
        )
        #expect(rig.function.writes.map(\.offset) == [0, 2, 8, 12])
        rig.function.writes = []
        let bad = entry(FakeFunction.registerBytes, [1])
        #expect(try completed([entry(0, [1]), bad, entry(4, [1])]) == 1)
        #expect(try completed([entry(0, [1]), entry(4, [1], 9), entry(4, [1])]) == 1)
        #expect(try completed([bad]) == 0)
        #expect(try completed([]) == 0)
        #expect(rig.function.writes.map(\.offset) == [0, 0])
        let all = MultiWrite(entries: [entry(0, [1])]).encoded
        #expect(try rig.refusal(.regionWriteMulti, all + [0]) == .init(.command))
        #expect(try rig.refusal(.regionWriteMulti, Array(all.dropLast())) == .init(.command))
        let step = rig.send(.regionWriteMulti, all, flags: .noReply)
        #expect(step.reply == nil && step.refused == nil && rig.function.writes.count == 3)
    }

    @Test func `HI-E21: a thousand commands with one id are served in order`() throws {
        let rig = try SessionRig()
        for number in 0..<1000 as Range<UInt32> {
            let value = AccessWidth.long.bytes(of: number)
            let access = RegionAccess(offset: 0x10, region: 0, count: 4).encoded
            let step = rig.send(Command.regionWrite.rawValue, access + value, id: 7)
            #expect(step.reply.flatMap(MessageHeader.init)?.identifier == 7)
        }
        #expect(rig.function.writes.map(\.value) == Array(0..<1000))
    }

    @Test func `VFU-S-47: a device that ends its own connection inside a command is no trap`()
        throws
    {
        let rig = try SessionRig()
        rig.function.onWrite = { [unowned rig] in rig.session.end() }
        _ = rig.send(.regionWrite, RegionAccess(offset: 0, region: 0, count: 1).encoded + [1])
        #expect(rig.function.farewells == 1)
    }
}
