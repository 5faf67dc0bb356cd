/// What both ends agreed on by VERSION, from the server's side.
public struct Negotiation: Sendable, Equatable {
    /// Largest count of a DMA message to the client.
    public let transferSize: Int
    /// Most descriptors in one message to the client.
    public let messageDescriptors: Int
    /// The reply's payload.
    let answer: [UInt8]

    /// The minor version of this server.
    static let minor: UInt16 = 0
    /// Descriptors that are taken in one message.
    static let acceptedDescriptors = 16

    /// Answers a client's proposal (VFU-S-01 … VFU-S-05).
    init(_ payload: [UInt8], hasDescriptors: Bool) throws(Refusal) {
        guard !hasDescriptors else { throw Refusal(.negotiate, "descriptors with VERSION") }
        let proposal: Version
        do throws(Version.Problem) {
            proposal = try Version(payload)
        } catch {
            switch error {
            case .short: throw Refusal(.negotiate, "a VERSION of \(payload.count) bytes")
            case .capabilities(let why): throw Refusal(.json, why)
            }
        }
        guard proposal.major == 0 else {
            throw Refusal(.negotiate, "not supported: major version \(proposal.major)")
        }
        let theirs = proposal.capabilities ?? Capabilities()
        transferSize = min(
            theirs.transferSize ?? Capabilities.defaultTransferSize,
            Capabilities.defaultTransferSize
        )
        messageDescriptors = theirs.messageDescriptors ?? Capabilities.defaultMessageDescriptors
        answer = Negotiation.answer(to: proposal, length: payload.count)
    }

    /// The most that fits: QEMU reads no more bytes than it has sent.
    private static func answer(to proposal: Version, length: Int) -> [UInt8] {
        let minor = min(minor, proposal.minor)
        guard let theirs = proposal.capabilities else {
            return Version(minor: minor, capabilities: nil).encoded
        }
        var short = Capabilities()
        short.messageDescriptors = acceptedDescriptors
        var ordinary = short
        ordinary.transferSize = Capabilities.defaultTransferSize
        var full = ordinary
        if theirs.writesMultiple == true { full.writesMultiple = true }
        for capabilities in [full, ordinary, short, Capabilities()] {
            let answer = Version(minor: minor, capabilities: capabilities).encoded
            if answer.count <= length { return answer }
        }
        // An object, and the zero byte: whoever sent JSON has room for as much.
        return Version(minor: minor, capabilities: nil).encoded + Array("{}".utf8) + [0]
    }
}
