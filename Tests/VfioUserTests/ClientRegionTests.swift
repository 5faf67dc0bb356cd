import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import VfioUser

@Suite struct ClientRegionTests {
    /// A description of BAR 2 as a server may send it.
    private struct Description: Sendable {
        var size: UInt64 = 4 * 4096
        var offset: UInt64 = 0
        var flags: RegionInfo.Flags = [.read, .write, .mappable, .capabilities]
        var index: UInt32 = 2
        var first: UInt32 = 32
        var capabilities: [UInt8] = SparseAreas(areas: [4096..<8192]).encoded
        var argumentSize: UInt32?
        var files = 1

        var bytes: [UInt8] {
            var info = RegionInfo(flags: flags, index: index)
            info.argumentSize = argumentSize ?? UInt32(32 + capabilities.count)
            info.capabilityOffset = first
            info.length = size
            info.offset = offset
            return info.encoded + capabilities
        }
    }

    private func server(_ description: Description) throws -> ScriptedServer {
        let file = try MemoryFile(name: "window", size: 4 * 4096)
        return try ScriptedServer { message in
            guard message.command == .deviceGetRegionInfo, let asked = RegionInfo(message.payload),
                asked.index == 2
            else { return nil }
            guard asked.argumentSize > 32 else {
                return [.reply(RegionInfo(argumentSize: 512, index: 2).encoded)]
            }
            let files = [FileDescriptor](repeating: file.descriptor, count: description.files)
            return [.reply(description.bytes, files)]
        }
    }

    private func refusalOf(_ description: Description) throws -> String? {
        let server = try server(description)
        return refusal { _ = try server.client() }
    }

    /// A capability that is none we know.
    private func capability(_ id: UInt16, next: UInt32) -> [UInt8] {
        var writer = WireWriter()
        writer.integer(id)
        writer.integer(UInt16(1))
        writer.integer(next)
        writer.zeros(8)
        return writer.bytes
    }

    @Test func `VFU-C-03: a description is asked for again with the size that it needs`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        let sizes = server.messages(.deviceGetRegionInfo).compactMap { RegionInfo($0.payload) }
            .filter { $0.index == 2 }.map(\.argumentSize)
        #expect(sizes == [32, 32 + 16 + 32])
        #expect(try client.barSize(2) == UInt64(ScriptedServer.window))
        #expect(try client.mapWindow(2, offset: 4096, size: 4096).size == 4096)
    }

    @Test func `VFU-C-03: a size that grows each time is refused`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetRegionInfo, let asked = RegionInfo(message.payload)
            else { return nil }
            let info = RegionInfo(argumentSize: asked.argumentSize + 16, index: asked.index)
            return [.reply(info.encoded)]
        }
        #expect(refusal { _ = try server.client() } == "region/info")
        #expect(server.messages(.deviceGetRegionInfo).count == 3)
    }

    @Test(arguments: [0, 31, 1 << 17, .max] as [UInt32])
    func `VFU-C-03: a size that cannot be is refused`(_ size: UInt32) throws {
        #expect(try refusalOf(Description(argumentSize: size)) == "region/info")
    }

    @Test(arguments: [1, 8, 31, 60, 64, 4096, UInt32.max] as [UInt32])
    func `VFU-C-03: a capability outside the answer is refused`(_ first: UInt32) throws {
        #expect(try refusalOf(Description(first: first)) == "region/info")
    }

    @Test(arguments: [(32, 0), (48, 32), (48, 48)] as [(UInt32, UInt32)])
    func `VFU-C-03: capabilities that go in a circle are refused`(
        _ first: UInt32,
        _ second: UInt32
    ) throws {
        var description = Description()
        description.capabilities = capability(7, next: first) + capability(8, next: second)
        #expect(try refusalOf(description) == "region/info")
    }

    @Test func `VFU-C-03: a capability that nobody knows is passed over`() throws {
        var description = Description()
        description.capabilities = capability(7, next: 48) + SparseAreas(areas: [0..<4096]).encoded
        let client = try server(description).client()
        #expect(try client.mapWindow(2, offset: 0, size: 4096).size == 4096)
        #expect(throws: PCIError.self) { try client.mapWindow(2, offset: 4096, size: 4096) }
    }

    @Test(arguments: [
        Description(size: 1 << 53),
        Description(size: .max),
        Description(size: 4096),
        Description(offset: .max - 4095),
        Description(offset: 4 * 4096),
        Description(offset: 100),
        Description(index: 3),
        Description(capabilities: SparseAreas(areas: [0..<8192, 4096..<12288]).encoded),
        Description(capabilities: SparseAreas(areas: [0..<4096, 0..<4096]).encoded),
        Description(capabilities: SparseAreas(areas: [12288..<20480]).encoded),
        Description(capabilities: SparseAreas(areas: [100..<4196]).encoded),
        Description(capabilities: SparseAreas(areas: [0..<100]).encoded),
        Description(flags: [.read, .write]),
        Description(files: 2),
    ])
    private func `HI-E42: a description that contradicts itself is refused`(
        _ description: Description
    ) throws {
        #expect(try refusalOf(description) == "region/info")
    }

    @Test func `HI-E42: more areas than the answer holds, or one that wraps, are refused`() throws {
        var description = Description()
        description.capabilities.replaceSubrange(8..<12, with: [0xff, 0xff, 0xff, 0xff])
        #expect(try refusalOf(description) == "region/info")
        description = Description()
        description.capabilities.replaceSubrange(16..<24, with: [UInt8](repeating: 0xff, count: 8))
        #expect(try refusalOf(description) == "region/info")
    }

    @Test func `HI-E42: a file that is too small is refused`() throws {
        let small = try MemoryFile(name: "small", size: 4096)
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetRegionInfo, let asked = RegionInfo(message.payload),
                asked.index == 2, asked.argumentSize > 32
            else { return nil }
            return [.reply(Description().bytes, [small.descriptor])]
        }
        #expect(refusal { _ = try server.client() } == "region/info")
    }

    @Test(arguments: [0, 63, 4097, 1 << 40] as [UInt64])
    func `HI-E42: a configuration space of absurd length is refused`(_ size: UInt64) throws {
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetRegionInfo, let asked = RegionInfo(message.payload),
                asked.index == 7
            else { return nil }
            return [.reply(RegionInfo(flags: .read, index: 7, length: size).encoded)]
        }
        #expect(refusal { _ = try server.client() } == "region/info")
    }

    @Test func `a region without a file is reached by messages only`() throws {
        let client = try server(Description(files: 0)).client()
        #expect(throws: PCIError.self) { try client.mapWindow(2, offset: 4096, size: 4096) }
        try client.writeRegister(2, 4096, .long, 0x1234_5678)
        #expect(try client.readRegister(2, 4096, .long) == 0x1234_5678)
    }

    @Test func `HI-E42: a file that is no shared memory is not mapped`() throws {
        let event = try EventFD()
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetRegionInfo, let asked = RegionInfo(message.payload),
                asked.index == 2, asked.argumentSize > 32
            else { return nil }
            return [.reply(Description().bytes, [event.descriptor])]
        }
        let client = try server.client()
        #expect(throws: PCIError.self) { try client.mapWindow(2, offset: 4096, size: 4096) }
        #expect(try client.readRegister(2, 4096, .byte) == 0)
    }

    @Test func `a window shows the server's pages where they belong, and zeros between`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        let pages = try server.file.map()
        unsafe pages.address.storeBytes(of: 0x1111, toByteOffset: 4096, as: UInt32.self)
        unsafe pages.address.storeBytes(of: 0x3333, toByteOffset: 12288, as: UInt32.self)
        let window = try client.mapWindow(2, offset: 0, size: UInt64(ScriptedServer.window))
        #expect(unsafe window.address.load(fromByteOffset: 4096, as: UInt32.self) == 0x1111)
        #expect(unsafe window.address.load(fromByteOffset: 12288, as: UInt32.self) == 0x3333)
        #expect(unsafe window.address.load(fromByteOffset: 8192, as: UInt32.self) == 0)
        unsafe window.address.storeBytes(of: 0x4444, toByteOffset: 4100, as: UInt32.self)
        #expect(unsafe pages.address.load(fromByteOffset: 4100, as: UInt32.self) == 0x4444)
        let part = try client.mapWindow(2, offset: 12292, size: 8)
        unsafe part.address.storeBytes(of: 0x5555, as: UInt32.self)
        #expect(unsafe pages.address.load(fromByteOffset: 12292, as: UInt32.self) == 0x5555)
    }

    @Test(arguments: [(0, 16385), (16384, 1), (.max, 1), (4096, .max)] as [(UInt64, UInt64)])
    func `a window beyond its BAR is refused`(_ offset: UInt64, _ size: UInt64) throws {
        let client = try ScriptedServer().client()
        #expect(throws: PCIError.self) { try client.mapWindow(2, offset: offset, size: size) }
    }
}
