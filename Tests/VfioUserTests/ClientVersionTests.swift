import Glibc
import HostSystem
import PCI
import Testing

@testable import VfioUser

@Suite struct ClientVersionTests {
    /// A server that answers VERSION with these bytes.
    private func server(
        _ answer: [UInt8],
        _ descriptors: [FileDescriptor] = []
    ) throws -> ScriptedServer {
        try ScriptedServer { message in
            message.command == .version ? [.reply(answer, descriptors)] : nil
        }
    }

    private func refusalOfClient(_ server: ScriptedServer) -> String? {
        refusal { _ = try server.client() }
    }

    @Test func `VFU-C-01: the first message is VERSION, and nothing goes before its answer`() throws
    {
        let server = try ScriptedServer()
        _ = try server.client()
        let first = try #require(server.messages.first)
        #expect(first.command == .version)
        #expect(first.descriptors.isEmpty)
        let version = try Version(first.payload)
        #expect(version.major == 0)
        #expect(version.minor == 0)
        #expect(version.capabilities?.messageDescriptors == 32)
        #expect(version.capabilities?.transferSize == 1 << 20)
        #expect(version.capabilities?.hasTwinSocket == nil)
        #expect(server.messages(.version).count == 1)
    }

    @Test(arguments: [1, 2, 0xffff] as [UInt16])
    func `VFU-C-01: another major version ends the connection`(_ major: UInt16) throws {
        let server = try server(ScriptedServer.version(major: major))
        #expect(refusalOfClient(server) == "vfu/negotiate")
        #expect(server.messages.count == 1)
    }

    @Test(arguments: [1, 2, 0xffff] as [UInt16])
    func `VFU-C-01: a minor version above ours ends the connection`(_ minor: UInt16) throws {
        let server = try server(ScriptedServer.version(minor: minor))
        #expect(refusalOfClient(server) == "vfu/negotiate")
    }

    @Test func `VFU-C-01: a server that refuses to agree is named`() throws {
        let server = try ScriptedServer { $0.command == .version ? [.refuse(22), .close] : nil }
        #expect(refusalOfClient(server) == "vfu/negotiate")
    }

    @Test(arguments: [
        [], [0], [0, 0, 0], [0, 0, 0, 0, 0x7b], Array("\0\0\0\0{]".utf8) + [0],
        Array(#"    {"capabilities":{"max_msg_fds":-1}}"#.utf8) + [0],
        Array(#"    {"capabilities":{"max_msg_fds":"many"}}"#.utf8) + [0],
    ])
    func `VFU-C-01: an answer that makes no sense ends the connection`(_ answer: [UInt8]) throws {
        let id = refusalOfClient(try server(answer.map { $0 == 0x20 ? 0 : $0 }))
        #expect(id == (answer.count < 4 ? "vfu/reply" : "vfu/negotiate"))
    }

    @Test(arguments: ["", "{}", #"{"capabilities":{}}"#, #"{"capabilities":{"new":1}}"#])
    func `VFU-C-02: what the server does not say has the protocol's default`(
        _ text: String
    ) throws {
        let answer = ScriptedServer.version(text)
        let server = try ScriptedServer { message in
            if message.command == .version { return [.reply(answer)] }
            guard message.command == .deviceGetIRQInfo else { return nil }
            let flags: InterruptInfo.Flags = [.eventDescriptor, .noResize]
            return [.reply(InterruptInfo(flags: flags, index: 2, count: 4).encoded)]
        }
        let client = try server.client()
        // One descriptor for each message.
        try client.connectInterrupt(2, to: EventFD())
        let counts = server.messages(.deviceSetIRQs).map(\.descriptors.count)
        #expect(counts == [0, 1, 1, 1])
        // 1 MiB for each access.
        #expect(errorNumber { _ = try client.readBytes(0, 0, 4096) } == nil)
        #expect(server.messages(.regionRead).last?.payload.count == 16)
    }

    @Test func `HI-E41: a second socket that was not asked for ends the connection`() throws {
        let json = #"{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}"#
        let answer = ScriptedServer.version(json)
        #expect(refusalOfClient(try server(answer)) == "vfu/negotiate")
        let event = try EventFD()
        #expect(refusalOfClient(try server(answer, [event.descriptor])) == "vfu/negotiate")
    }

    @Test func `HI-E41: a descriptor with the version ends the connection`() throws {
        let event = try EventFD()
        let server = try server(ScriptedServer.version(), [event.descriptor])
        #expect(refusalOfClient(server) == "vfu/negotiate")
    }

    @Test func `a second socket that is not there is no fault`() throws {
        let json = #"{"capabilities":{"twin_socket":{"supported":false}}}"#
        _ = try server(ScriptedServer.version(json)).client()
    }

    @Test(arguments: [DeviceInfo.Flags.reset, []])
    func `a device that is no PCI function is refused`(_ flags: DeviceInfo.Flags) throws {
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetInfo else { return nil }
            let info = DeviceInfo(flags: flags, regionCount: 9, interruptCount: 5)
            return [.reply(info.encoded)]
        }
        #expect(refusalOfClient(server) == "vfu/device")
    }

    @Test func `a device without a region for configuration is refused`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetInfo else { return nil }
            return [.reply(DeviceInfo(flags: .pci, regionCount: 7, interruptCount: 5).encoded)]
        }
        #expect(refusalOfClient(server) == "vfu/device")
    }

    @Test func `HI-E44: a new connection begins with a reset`() throws {
        let server = try ScriptedServer()
        _ = try server.client()
        let commands = server.messages.compactMap(\.command)
        #expect(commands.prefix(3) == [.version, .deviceGetInfo, .deviceReset])
    }

    @Test func `a device that cannot be reset is not, and says so`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetInfo else { return nil }
            return [.reply(DeviceInfo(flags: .pci, regionCount: 9, interruptCount: 5).encoded)]
        }
        let client = try server.client()
        #expect(server.messages(.deviceReset).isEmpty)
        #expect(throws: PCIError.self) { try client.reset() }
    }
}

@Suite struct ClientPathTests {
    private func refusalOf(_ path: String) -> HostRefusal? {
        do {
            _ = try Client(path: path)
            return nil
        } catch {
            if case .refused(let refusal) = error { return refusal }
            return nil
        }
    }

    @Test func `a path where nothing is says so`() {
        let refusal = refusalOf("/tmp/vhost-pci-no-such-socket")
        #expect(refusal?.id == "vfu/socket")
        #expect(refusal?.remedy.isEmpty == false)
    }

    @Test func `a socket where nobody listens says so`() throws {
        let path = "/tmp/vhost-pci-nobody-\(MonotonicClock.now)"
        let listener = try UnixListener(path: path)
        // The file stays when the listening descriptor goes.
        let socket = listener.descriptor.rawValue
        _ = shutdown(socket, Int32(SHUT_RDWR))
        let refusal = refusalOf(path)
        #expect(refusal?.id == "vfu/nobody")
        withExtendedLifetime(listener) {}
    }

    @Test func `a server whose backlog is full says so`() throws {
        let path = "/tmp/vhost-pci-full-\(MonotonicClock.now)"
        let listener = try UnixListener(path: path, backlog: 0)
        let first = try UnixSocket.connect(to: path)
        #expect(refusalOf(path)?.id == "vfu/busy")
        withExtendedLifetime((listener, first)) {}
    }

    @Test func `VFU-C-07: a server that accepts and says nothing is named after the limit`() throws
    {
        let path = "/tmp/vhost-pci-mute-\(MonotonicClock.now)"
        let listener = try UnixListener(path: path)
        var limits = ClientLimits()
        limits.reply = 30
        #expect(refusal { _ = try Client(path: path, limits: limits) } == "vfu/stall")
        withExtendedLifetime(listener) {}
    }
}
