internal import Glibc
internal import HostSystem
internal import Virtio
internal import VirtioSpec

/// The admin queue on the driver's side: one command at a time, each with a deadline.
///
/// A command that is not answered in time breaks the channel and resets the management device, so
/// that a late answer finds nothing to write to (AVQ-M-306, AVQ-M-903, HI-F94).
final class AdminChannel {
    /// Room that every command gives: acknowledgement and error record (AVQ-M-302).
    static let minimumRoom = 1 + AdminErrorRecord.size
    /// How often a command is repeated when the device asks for it.
    static let maximumRetries = 8

    private let transport: any VirtioTransport
    private let queue: DriverBufferQueue
    private let loop: EventLoop
    private let timeoutMilliseconds: UInt64
    /// Answers to commands other than the one that is waited for: a handler that runs while one
    /// command waits may issue another.
    private var answers: [UInt16: [UInt8]] = [:]
    private var waiting: Set<UInt16> = []
    private var failure: VirtioError?

    /// Whether failed commands carry an error record; known once CAP_GET was answered.
    var hasErrorRecords = false

    init(
        transport: any VirtioTransport,
        queue: DriverBufferQueue,
        loop: EventLoop,
        timeoutMilliseconds: UInt64
    ) {
        self.transport = transport
        self.queue = queue
        self.loop = loop
        self.timeoutMilliseconds = timeoutMilliseconds
    }

    /// Executes a command and returns its result, at most `room` bytes. Bytes that the device did
    /// not write are not there: read results through `WireFields` (HI-F91).
    func execute(
        _ command: VirtualDeviceCommand,
        for id: UInt64 = 0,
        room: Int = 0
    ) throws(VirtioError) -> [UInt8] {
        let name = command.opcode.name
        let readable = command.bytes(for: id)
        for _ in 0...Self.maximumRetries {
            let answer = try exchange(readable, max(Self.minimumRoom, 1 + room), name)
            guard let acknowledgement = answer.first else {
                throw .command(name, "answered without acknowledgement")
            }
            if acknowledgement == AdminAcknowledgement.ok.rawValue {
                return Array(answer.dropFirst().prefix(room))
            }
            guard hasErrorRecords else {
                throw .command(name, "failed (acknowledgement \(acknowledgement))")
            }
            let record = AdminErrorRecord(zeroExtending: answer.dropFirst())
            guard record.asksForRetry else { throw .command(name, record.description) }
            usleep(1000)
        }
        throw .controlTimeout("\(name): the device asks for another try without end")
    }

    /// Why no command can be executed any more.
    func requireWorking() throws(VirtioError) {
        if let failure { throw failure }
    }

    /// Ends the channel.
    func close(_ reason: VirtioError) {
        if failure == nil { failure = reason }
    }

    private func exchange(
        _ readable: [UInt8],
        _ room: Int,
        _ name: String
    ) throws(VirtioError) -> [UInt8] {
        try requireWorking()
        do throws(VirtioError) {
            let token = try queue.submit(readable: readable, writableCount: room)
            waiting.insert(token)
            defer { waiting.remove(token) }
            try queue.notify()
            return try answer(to: token, name)
        } catch .noRoom(let what) {
            throw .noRoom(what)
        } catch {
            close(error)
            try? transport.reset()
            throw error
        }
    }

    /// Waits for an answer, serving the loop meanwhile: the device may live on the same one.
    private func answer(to token: UInt16, _ name: String) throws(VirtioError) -> [UInt8] {
        let deadline = Deadline(milliseconds: timeoutMilliseconds)
        while true {
            try takeAnswers()
            if let answer = answers.removeValue(forKey: token) { return answer }
            guard !deadline.hasPassed else { throw .controlTimeout(name) }
            do {
                try loop.turn(limitMilliseconds: 1)
            } catch {
                throw .system(error)
            }
            try requireWorking()
        }
    }

    private func takeAnswers() throws(VirtioError) {
        while let completion = try queue.poll() {
            guard waiting.contains(completion.token) else { continue }
            answers[completion.token] = completion.written
        }
    }
}
