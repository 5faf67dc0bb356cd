internal import GuestMemory
public import HostSystem

/// Why a device's access to its client's memory failed.
public enum DMAError: Error, Equatable, Sendable {
    /// Part of the range is not there, or not for this kind of access.
    case notMapped
    /// The client refused a message, with this number; it is not asked again (VFU-S-45).
    case refused(Errno)
    /// The client did not answer in time.
    case noReply
    /// The client is gone, or there was none.
    case disconnected
    /// A file of the client could not be read or written.
    case file(Errno)
}

/// What becomes of an access.
public typealias DMACompletion = (Result<[UInt8], DMAError>) -> Void

/// A device's accesses to memory that need messages, one after the other: each is cut into messages
/// of at most the client's limit, and the next message leaves when the last was answered.
///
/// Nothing here waits: the client's commands are served in between (VFU-S-46).
struct DMAExchange {
    private struct Transfer {
        let isRead: Bool
        let address: UInt64
        /// What to write, or what was read so far.
        var bytes: [UInt8]
        let count: Int
        /// Bytes that are done.
        var done = 0
        let then: DMACompletion
    }

    private struct Question {
        let identifier: UInt16
        let command: Command
        let access: DMAAccess
        let deadline: Deadline
    }

    /// What to do next.
    enum Step {
        /// Nothing: an answer is awaited, or there is no work.
        case idle
        /// Send this message.
        case send(header: [UInt8], payload: [UInt8])
        /// Nothing yet: call again.
        case again
        /// Tell whoever asked.
        case finished(DMACompletion, Result<[UInt8], DMAError>)
    }

    private let limit: Int
    private let replyMilliseconds: UInt64
    private var transfers: [Transfer] = []
    private var question: Question?
    private var lastIdentifier: UInt16 = 0x7fff
    /// Questions that nobody waits for any more; their answers are not wrong, only late.
    private var abandoned: Set<UInt16> = []
    private static let abandonedLimit = 256
    /// Why the first access is over, told with the next `step`.
    private var failure: DMAError?

    /// `limit` is the client's largest transfer, in bytes.
    init(limit: Int, replyMilliseconds: UInt64) {
        self.limit = max(1, limit)
        self.replyMilliseconds = replyMilliseconds
    }

    /// When the client has been silent for too long.
    var deadline: Deadline? { question?.deadline }

    /// Accepts an access; it begins with the next `step`.
    mutating func read(_ address: UInt64, _ count: Int, _ then: @escaping DMACompletion) {
        transfers.append(
            Transfer(isRead: true, address: address, bytes: [], count: count, then: then)
        )
    }

    /// Accepts an access; it begins with the next `step`.
    mutating func write(_ address: UInt64, _ bytes: [UInt8], _ then: @escaping DMACompletion) {
        transfers.append(
            Transfer(
                isRead: false,
                address: address,
                bytes: bytes,
                count: bytes.count,
                then: then
            )
        )
    }

    /// Goes on with the first access as far as that is possible now.
    mutating func step(_ table: inout DMATable) -> Step {
        if let question {
            guard question.deadline.hasPassed else { return .idle }
            // Whoever never answers is not remembered for ever.
            if abandoned.count >= Self.abandonedLimit { abandoned = [] }
            abandoned.insert(question.identifier)
            self.question = nil
            return finish(.failure(.noReply))
        }
        guard let transfer = transfers.first else { return .idle }
        if let failure {
            self.failure = nil
            return finish(.failure(failure))
        }
        let access: MemoryAccess = transfer.isRead ? .read : .write
        let left = UInt64(transfer.count - transfer.done)
        // Looked up anew for every message: the client may have taken memory away since the last.
        let at = transfer.address.addingReportingOverflow(UInt64(transfer.done))
        guard !at.overflow || left == 0,
            let pieces = table.pieces(at.partialValue, left, access)
        else { return finish(.failure(.notMapped)) }
        guard let piece = pieces.first else {
            return finish(.success(transfer.isRead ? transfer.bytes : []))
        }
        switch piece.way {
        case .mapped: return move(piece, table.memory())
        case .file(let file, let offset): return move(piece, file, offset)
        case .messages: return ask(piece)
        }
    }

    /// Takes a reply to whatever was asked.
    mutating func accept(_ header: MessageHeader, _ payload: [UInt8]) -> Reply {
        guard let asked = question, asked.identifier == header.identifier,
            asked.command.rawValue == header.command
        else {
            return abandoned.remove(header.identifier) != nil ? .late : .stray
        }
        question = nil
        if header.flags.contains(.error) {
            let number = (1...4096).contains(header.error) ? Int32(header.error) : 22
            failure = .refused(Errno(number))
            return .taken
        }
        let count = Int(asked.access.count)
        let hasData = asked.command == .dmaRead
        guard DMAAccess(payload) == asked.access,
            payload.count == DMAAccess.size + (hasData ? count : 0)
        else {
            failure = .refused(.ioFailure)
            return .malformed
        }
        if hasData { transfers[0].bytes += payload.dropFirst(DMAAccess.size) }
        transfers[0].done += count
        return .taken
    }

    /// What a reply was.
    enum Reply {
        /// The answer to the question.
        case taken
        /// The answer to a question that was given up.
        case late
        /// The answer to nothing.
        case stray
        /// The answer to the question, and not what it was about.
        case malformed
    }

    /// Ends everything; the completions are to be called.
    mutating func endAll() -> [DMACompletion] {
        defer {
            transfers = []
            question = nil
            failure = nil
        }
        return transfers.map(\.then)
    }

    // MARK: -

    private mutating func finish(_ result: Result<[UInt8], DMAError>) -> Step {
        .finished(transfers.removeFirst().then, result)
    }

    private mutating func move(_ piece: DMATable.Piece, _ memory: MemoryTable) -> Step {
        let count = Int(piece.count)
        if transfers[0].isRead {
            guard let bytes = memory.read(piece.address, count) else {
                return finish(.failure(.notMapped))
            }
            transfers[0].bytes += bytes
        } else {
            let done = transfers[0].done
            let part = transfers[0].bytes[done..<(done + count)]
            guard memory.write(part, at: piece.address) else {
                return finish(.failure(.notMapped))
            }
        }
        transfers[0].done += count
        return .again
    }

    private mutating func move(
        _ piece: DMATable.Piece,
        _ file: FileDescriptor,
        _ offset: UInt64
    ) -> Step {
        let count = Int(piece.count)
        do throws(SystemError) {
            let moved: Int
            if transfers[0].isRead {
                let bytes = try file.read(at: offset, count: count)
                transfers[0].bytes += bytes
                moved = bytes.count
            } else {
                let done = transfers[0].done
                let part = Array(transfers[0].bytes[done..<(done + count)])
                moved = try file.write(at: offset, part)
            }
            guard moved == count else { return finish(.failure(.file(.ioFailure))) }
        } catch {
            return finish(.failure(.file(error.errno)))
        }
        transfers[0].done += count
        return .again
    }

    private mutating func ask(_ piece: DMATable.Piece) -> Step {
        let transfer = transfers[0]
        let count = Int(min(piece.count, UInt64(limit)))
        let access = DMAAccess(address: piece.address, count: UInt64(count))
        repeat { lastIdentifier &+= 1 } while abandoned.contains(lastIdentifier)
        let command: Command = transfer.isRead ? .dmaRead : .dmaWrite
        let data =
            transfer.isRead
            ? [] : Array(transfer.bytes[transfer.done..<(transfer.done + count)])
        question = Question(
            identifier: lastIdentifier,
            command: command,
            access: access,
            deadline: Deadline(milliseconds: replyMilliseconds)
        )
        let header = MessageHeader(
            identifier: lastIdentifier,
            command: command.rawValue,
            messageSize: UInt32(MessageHeader.size + DMAAccess.size + data.count)
        )
        return .send(header: header.encoded + access.encoded, payload: data)
    }
}
