import HostSystem
import PCI
import Testing
import VirtioSpec
import Virtqueue

@testable import VfioUser

@Suite struct ClientDoorbellTests {
    /// A server that offers these io descriptors for BAR 0.
    private func server(
        _ entries: [UInt8],
        count: UInt32,
        _ descriptors: [FileDescriptor]
    ) throws -> ScriptedServer {
        try ScriptedServer { message in
            guard message.command == .deviceGetRegionIOFDs,
                let asked = RegionDescriptors(message.payload)
            else { return nil }
            var answer = RegionDescriptors(index: asked.index)
            answer.argumentSize = UInt32(RegionDescriptors.size + entries.count)
            guard asked.argumentSize >= answer.argumentSize else {
                return [.reply(answer.encoded)]
            }
            answer.count = count
            return [.reply(answer.encoded + entries, descriptors)]
        }
    }

    private func event(
        _ offset: UInt64,
        _ length: UInt64 = 2,
        index: UInt32 = 0,
        match: UInt64? = nil
    ) -> [UInt8] {
        RegionEvent(
            offset: offset,
            length: length,
            descriptorIndex: index,
            flags: match == nil ? [] : .dataMatch,
            dataMatch: match ?? 0
        ).encoded
    }

    @Test func `an eventfd of the server is rung without a message`() throws {
        let events = [try EventFD(), try EventFD()]
        let entries = event(0x100) + event(0x200, index: 1, match: 3)
        let server = try server(entries, count: 2, events.map(\.descriptor))
        let client = try server.client()
        let first = try client.doorbell(0, 0x100, value: 9)
        let second = try client.doorbell(0, 0x200, value: 3)
        let before = server.messages.count
        first.ring()
        second.ring()
        second.ring()
        #expect(events[0].drain() == 1)
        #expect(events[1].drain() == 2)
        #expect(server.messages.count == before)
        #expect(server.messages(.deviceGetRegionIOFDs).count == 2)
        withExtendedLifetime(client) {}
    }

    @Test func `the longer layout of an entry is understood`() throws {
        let bell = try EventFD()
        var entry = event(0x100, match: 7)
        entry.insert(contentsOf: [UInt8](repeating: 0, count: 8), at: 32)
        let client = try server(entry, count: 1, [bell.descriptor]).client()
        try client.doorbell(0, 0x100, value: 7).ring()
        #expect(bell.drain() == 1)
        withExtendedLifetime(client) {}
    }

    @Test func `a store that no eventfd stands for is written by a message`() throws {
        let bell = try EventFD()
        let entries = event(0x100, match: 3) + event(0x102, 4)
        let server = try server(entries, count: 2, [bell.descriptor])
        let client = try server.client()
        try client.doorbell(0, 0x100, value: 4).ring()
        try client.doorbell(0, 0x102, value: 0x1234).ring()
        let deadline = Deadline(milliseconds: 5000)
        while server.messages(.regionWrite).count < 2, !deadline.hasPassed { pauseMilliseconds(2) }
        #expect(try client.readRegister(0, 0x100, .long) == 0x1234_0004)
        #expect(bell.drain() == 0)
    }

    @Test func `a server without io descriptors is told by messages, in a thread`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        let doorbell = try client.doorbell(0, 0x80, value: 0xabcd)
        doorbell.ring()
        let deadline = Deadline(milliseconds: 5000)
        while server.messages(.regionWrite).isEmpty, !deadline.hasPassed { pauseMilliseconds(2) }
        #expect(try client.readRegister(0, 0x80, .word) == 0xabcd)
        // The owner works on meanwhile, and nothing is mixed up.
        for value in 0..<200 as Range<UInt32> {
            doorbell.ring()
            try client.writeRegister(0, 0x90, .long, value)
            #expect(try client.readRegister(0, 0x90, .long) == value)
        }
        #expect(client.fault == nil)
    }

    @Test func `a register that can be mapped is written there`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        try client.doorbell(2, 4098, value: 0x4321).ring()
        let pages = try server.file.map()
        #expect(unsafe pages.address.load(fromByteOffset: 4098, as: UInt16.self) == 0x4321)
        #expect(server.messages(.regionWrite).isEmpty)
        withExtendedLifetime(client) {}
    }

    @Test func `a doorbell at an odd address is refused`() throws {
        let client = try ScriptedServer().client()
        #expect(throws: PCIError.self) { try client.doorbell(0, 1, value: 0) }
    }

    @Test func `HI-E45: an entry that cannot be refuses them all`() throws {
        let bell = try EventFD()
        let bad = [
            event(0x100, index: 1), event(0x100, index: .max), event(4095), event(4096, 0),
            event(.max), event(.max, .max), event(0, 4097), event(0x100, 0, match: 1),
            event(0x100, 3, match: 1), event(0x100, 16, match: 1),
        ]
        for entry in bad {
            let server = try server(event(0) + entry, count: 2, [bell.descriptor])
            let client = try server.client()
            #expect(refusal { _ = try client.doorbell(0, 0, value: 0) } == "region/io-fds")
        }
    }

    @Test(arguments: [1, 3, 4, 1000, .max] as [UInt32])
    func `HI-E45: a number of entries that their bytes do not make is refused`(
        _ count: UInt32
    ) throws {
        let bell = try EventFD()
        let entries = event(0) + event(2)
        let client = try server(entries, count: count, [bell.descriptor]).client()
        #expect(refusal { _ = try client.doorbell(0, 0, value: 0) } == "region/io-fds")
    }

    @Test func `HI-E45: a descriptor that is no eventfd is refused`() throws {
        let file = try MemoryFile(name: "bell", size: 4096)
        let client = try server(event(0), count: 1, [file.descriptor]).client()
        #expect(refusal { _ = try client.doorbell(0, 0, value: 0) } == "region/io-fds")
    }

    @Test func `HI-E45: an answer for another region is refused`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetRegionIOFDs else { return nil }
            return [.reply(RegionDescriptors(index: 1).encoded)]
        }
        let client = try server.client()
        #expect(refusal { _ = try client.doorbell(0, 0, value: 0) } == "region/io-fds")
    }

    @Test func `a kind of entry that nobody knows is passed over`() throws {
        let bell = try EventFD()
        var entry = event(0x100)
        entry[20] = 2
        let server = try server(
            entry + event(0x100, index: 1),
            count: 2,
            [
                bell.descriptor, bell.descriptor,
            ]
        )
        let client = try server.client()
        try client.doorbell(0, 0x100, value: 1).ring()
        #expect(bell.drain() == 1)
        withExtendedLifetime(client) {}
    }

    @Test func `HI-E44: ringing a server that is gone harms nobody`() throws {
        let server = try ScriptedServer { $0.command == .regionWrite ? [.close] : nil }
        let client = try server.client()
        let doorbell = try client.doorbell(0, 0x80, value: 1)
        for _ in 0..<10 {
            doorbell.ring()
            pauseMilliseconds(2)
        }
        let deadline = Deadline(milliseconds: 1000)
        while client.fault == nil, !deadline.hasPassed { pauseMilliseconds(2) }
        #expect(client.fault?.id == "vfu/peer-gone")
    }
}
