import GuestMemory
import HostSystem
import Synchronization
import VirtioSpec

@testable import VfioUser

/// A server in a thread of its own that answers like a good one but for what a test changes.
final class ScriptedServer: Sendable {
    /// A message as it came.
    struct Message: Sendable {
        var header: MessageHeader
        var payload: [UInt8]
        var descriptors: [FileDescriptor]
        var command: Command? { Command(rawValue: header.command) }
    }

    /// What the server does.
    enum Step: Sendable {
        /// Sends a reply with that payload.
        case reply([UInt8], [FileDescriptor] = [])
        /// Sends an error reply.
        case refuse(UInt32)
        /// Sends a command of its own.
        case command(UInt16, [UInt8], [FileDescriptor] = [])
        /// Sends bytes as they are.
        case raw([UInt8], [FileDescriptor] = [])
        /// Sends bytes again and again, for 10 s or until the client is gone.
        case flood([UInt8])
        /// Waits for a message from the client: the answer to a command of its own.
        case hear
        /// Waits milliseconds.
        case pause(UInt64)
        /// Closes the connection.
        case close
    }

    /// What is to be done for a message; `nil` for what a good server does.
    typealias Script = @Sendable (Message) -> [Step]?

    /// Bytes of BAR 0, which holds registers.
    static let registers = 4096
    /// Bytes of BAR 2, whose second and fourth page can be mapped.
    static let window = 4 * 4096
    /// Vectors.
    static let vectors = 40

    private struct State {
        var messages: [Message] = []
        var heard: [Message] = []
        var bars: [UInt32: [UInt8]] = [
            0: [UInt8](repeating: 0, count: registers),
            2: [UInt8](repeating: 0, count: window),
            7: ScriptedServer.configuration,
        ]
    }

    private let state = Mutex(State())
    private let stop: EventFD
    private let script: Script
    private let thread: Mutex<PollingThread?> = Mutex(nil)
    /// The pages of BAR 2.
    let file: MemoryFile

    init(_ script: @escaping Script = { _ in nil }) throws {
        self.script = script
        stop = try EventFD()
        file = try MemoryFile(name: "window", size: Self.window)
    }

    deinit { stop.signal() }

    /// Serves a new connection, and returns the client's end.
    func connect() throws -> UnixSocket {
        let (near, far) = try UnixSocket.pair()
        let stop = stop
        let new = try PollingThread(name: "server") { [weak self] in
            let stream = FramedStream(far, format: .vfioUser)
            while true {
                guard
                    stream.wait(until: Deadline(milliseconds: 20_000), cancel: stop.descriptor)
                        == .ready
                else { return }
                guard case .message(let frame) = stream.receive() else {
                    if stream.isHungUp { return }
                    continue
                }
                guard let self, self.serve(frame, stream) else { return }
            }
        }
        thread.withLock { $0 = new }
        return near
    }

    /// Servers live as long as the tests: their threads end with their clients.
    private static let all = Mutex<[ScriptedServer]>([])

    /// A client of a new connection.
    func client(_ limits: ClientLimits = ClientLimits()) throws -> Client {
        Self.all.withLock { $0.append(self) }
        return try Client(try connect(), name: "test", limits: limits)
    }

    /// What the client has sent, but for what was heard.
    var messages: [Message] { state.withLock { $0.messages } }
    /// What came when it was waited for.
    var heard: [Message] { state.withLock { $0.heard } }
    /// The messages of one command.
    func messages(_ command: Command) -> [Message] { messages.filter { $0.command == command } }
    /// The bytes of a region.
    func bytes(_ region: UInt32) -> [UInt8] { state.withLock { $0.bars[region] ?? [] } }

    private func serve(_ frame: Frame, _ stream: FramedStream) -> Bool {
        guard let message = Self.message(frame) else { return false }
        state.withLock { $0.messages.append(message) }
        for step in script(message) ?? good(message) {
            switch step {
            case .reply(let payload, let descriptors):
                _ = stream.send(
                    Self.header(message, payload.count).encoded,
                    payload,
                    descriptors: descriptors
                )
            case .refuse(let number):
                _ = stream.send(Self.header(message, 0, error: number).encoded)
            case .command(let number, let payload, let descriptors):
                let header = MessageHeader(
                    identifier: 0x7000,
                    command: number,
                    messageSize: UInt32(16 + payload.count)
                )
                _ = stream.send(header.encoded, payload, descriptors: descriptors)
            case .raw(let bytes, let descriptors):
                _ = stream.send(bytes, descriptors: descriptors)
            case .flood(let bytes):
                let deadline = Deadline(milliseconds: 10_000)
                while !deadline.hasPassed, !stream.isHungUp {
                    if stream.hasUnsent {
                        _ = stream.flush()
                    } else if stream.send(bytes) != nil {
                        return false
                    }
                }
                return false
            case .hear:
                guard let next = Self.next(stream) else { return false }
                state.withLock { $0.heard.append(next) }
            case .pause(let milliseconds):
                let deadline = Deadline(milliseconds: milliseconds)
                _ = stream.wait(toSend: false, until: deadline, cancel: stop.descriptor)
            case .close:
                return false
            }
            while stream.hasUnsent {
                guard stream.wait(toSend: true, until: Deadline(milliseconds: 5000)) == .ready
                else { return false }
                _ = stream.flush()
            }
        }
        return true
    }

    private static func next(_ stream: FramedStream) -> Message? {
        let deadline = Deadline(milliseconds: 5000)
        while stream.wait(until: deadline) == .ready {
            if case .message(let frame) = stream.receive() { return message(frame) }
            if stream.isHungUp { return nil }
        }
        return nil
    }

    private static func message(_ frame: Frame) -> Message? {
        MessageHeader(frame.header).map {
            Message(header: $0, payload: frame.payload, descriptors: frame.descriptors)
        }
    }

    static func header(_ message: Message, _ count: Int, error: UInt32? = nil) -> MessageHeader {
        MessageHeader(
            identifier: message.header.identifier,
            command: message.header.command,
            messageSize: UInt32(16 + count),
            flags: error == nil ? .reply : [.reply, .error],
            error: error ?? 0
        )
    }
}

// What a good server answers.
extension ScriptedServer {
    /// VERSION of a server with such capabilities.
    static func version(
        _ capabilities: String = #"{"capabilities":{"max_msg_fds":16}}"#,
        major: UInt16 = 0,
        minor: UInt16 = 0
    ) -> [UInt8] {
        var writer = WireWriter()
        writer.integer(major)
        writer.integer(minor)
        if !capabilities.isEmpty { writer.append(Array(capabilities.utf8) + [0]) }
        return writer.bytes
    }

    private static var configuration: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 256)
        bytes.replaceSubrange(0..<4, with: [0xf4, 0x1a, 0x7e, 0x10])
        bytes[6] = 0x10
        bytes[0x34] = 0x40
        bytes[0x40] = 0x11
        bytes[0x42] = UInt8(vectors - 1)
        return bytes
    }

    func good(_ message: Message) -> [Step] {
        let payload = message.payload
        switch message.command {
        case .version: return [.reply(Self.version())]
        case .deviceGetInfo:
            let flags: DeviceInfo.Flags = [.pci, .reset]
            let info = DeviceInfo(flags: flags, regionCount: 9, interruptCount: 5)
            return [.reply(info.encoded)]
        case .deviceGetRegionInfo: return region(payload)
        case .deviceGetIRQInfo:
            let info = InterruptInfo(
                flags: .eventDescriptor,
                index: 2,
                count: UInt32(Self.vectors)
            )
            return [.reply(info.encoded)]
        case .dmaMap, .deviceSetIRQs, .deviceReset: return [.reply([])]
        case .dmaUnmap: return [.reply(payload)]
        case .regionRead, .regionWrite: return access(message)
        default: return [.refuse(22)]
        }
    }

    private func region(_ payload: [UInt8]) -> [Step] {
        guard let asked = RegionInfo(payload) else { return [.refuse(22)] }
        var info = RegionInfo(flags: [.read, .write], index: asked.index)
        info.length = UInt64(bytes(asked.index).count)
        guard asked.index == 2 else { return [.reply(info.encoded)] }
        let sparse = SparseAreas(areas: [4096..<8192, 12288..<16384])
        info.argumentSize = UInt32(RegionInfo.size + sparse.encoded.count)
        info.flags.insert([.mappable, .capabilities])
        guard asked.argumentSize >= info.argumentSize else { return [.reply(info.encoded)] }
        info.capabilityOffset = UInt32(RegionInfo.size)
        return [.reply(info.encoded + sparse.encoded, [file.descriptor])]
    }

    private func access(_ message: Message) -> [Step] {
        guard let access = RegionAccess(message.payload) else { return [.refuse(22)] }
        let range = Int(access.offset)..<Int(access.offset) + Int(access.count)
        return state.withLock { state in
            guard let bytes = state.bars[access.region], range.upperBound <= bytes.count else {
                return [.refuse(22)]
            }
            if message.command == .regionRead {
                return [.reply(access.encoded + bytes[range])]
            }
            let new = message.payload.dropFirst(RegionAccess.size)
            guard new.count == range.count else { return [.refuse(22)] }
            state.bars[access.region]?.replaceSubrange(range, with: new)
            return [.reply(access.encoded)]
        }
    }
}
