from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RelayRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELAY_ROLE_UNSPECIFIED: _ClassVar[RelayRole]
    RELAY_ROLE_PUBLIC: _ClassVar[RelayRole]
    RELAY_ROLE_PRIVATE: _ClassVar[RelayRole]
RELAY_ROLE_UNSPECIFIED: RelayRole
RELAY_ROLE_PUBLIC: RelayRole
RELAY_ROLE_PRIVATE: RelayRole

class KaspadMessage(_message.Message):
    __slots__ = ("addresses", "block", "transaction", "blockLocator", "requestAddresses", "requestRelayBlocks", "requestTransactions", "ibdBlock", "invRelayBlock", "invTransactions", "ping", "pong", "verack", "version", "transactionNotFound", "reject", "pruningPointUtxoSetChunk", "requestIBDBlocks", "unexpectedPruningPoint", "ibdBlockLocator", "ibdBlockLocatorHighestHash", "requestNextPruningPointUtxoSetChunk", "donePruningPointUtxoSetChunks", "ibdBlockLocatorHighestHashNotFound", "blockWithTrustedData", "doneBlocksWithTrustedData", "requestPruningPointAndItsAnticone", "blockHeaders", "requestNextHeaders", "DoneHeaders", "requestPruningPointUTXOSet", "requestHeaders", "requestBlockLocator", "pruningPoints", "requestPruningPointProof", "pruningPointProof", "ready", "blockWithTrustedDataV4", "trustedData", "requestIBDChainBlockLocator", "ibdChainBlockLocator", "requestAntipast", "requestNextPruningPointAndItsAnticoneBlocks", "blockBody", "requestBlockBodies", "requestPruningPointSmtState", "smtMetadata", "smtLaneChunk", "requestNextPruningPointSmtChunk", "responseId", "requestId")
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_FIELD_NUMBER: _ClassVar[int]
    BLOCKLOCATOR_FIELD_NUMBER: _ClassVar[int]
    REQUESTADDRESSES_FIELD_NUMBER: _ClassVar[int]
    REQUESTRELAYBLOCKS_FIELD_NUMBER: _ClassVar[int]
    REQUESTTRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    IBDBLOCK_FIELD_NUMBER: _ClassVar[int]
    INVRELAYBLOCK_FIELD_NUMBER: _ClassVar[int]
    INVTRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    VERACK_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONNOTFOUND_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    PRUNINGPOINTUTXOSETCHUNK_FIELD_NUMBER: _ClassVar[int]
    REQUESTIBDBLOCKS_FIELD_NUMBER: _ClassVar[int]
    UNEXPECTEDPRUNINGPOINT_FIELD_NUMBER: _ClassVar[int]
    IBDBLOCKLOCATOR_FIELD_NUMBER: _ClassVar[int]
    IBDBLOCKLOCATORHIGHESTHASH_FIELD_NUMBER: _ClassVar[int]
    REQUESTNEXTPRUNINGPOINTUTXOSETCHUNK_FIELD_NUMBER: _ClassVar[int]
    DONEPRUNINGPOINTUTXOSETCHUNKS_FIELD_NUMBER: _ClassVar[int]
    IBDBLOCKLOCATORHIGHESTHASHNOTFOUND_FIELD_NUMBER: _ClassVar[int]
    BLOCKWITHTRUSTEDDATA_FIELD_NUMBER: _ClassVar[int]
    DONEBLOCKSWITHTRUSTEDDATA_FIELD_NUMBER: _ClassVar[int]
    REQUESTPRUNINGPOINTANDITSANTICONE_FIELD_NUMBER: _ClassVar[int]
    BLOCKHEADERS_FIELD_NUMBER: _ClassVar[int]
    REQUESTNEXTHEADERS_FIELD_NUMBER: _ClassVar[int]
    DONEHEADERS_FIELD_NUMBER: _ClassVar[int]
    REQUESTPRUNINGPOINTUTXOSET_FIELD_NUMBER: _ClassVar[int]
    REQUESTHEADERS_FIELD_NUMBER: _ClassVar[int]
    REQUESTBLOCKLOCATOR_FIELD_NUMBER: _ClassVar[int]
    PRUNINGPOINTS_FIELD_NUMBER: _ClassVar[int]
    REQUESTPRUNINGPOINTPROOF_FIELD_NUMBER: _ClassVar[int]
    PRUNINGPOINTPROOF_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    BLOCKWITHTRUSTEDDATAV4_FIELD_NUMBER: _ClassVar[int]
    TRUSTEDDATA_FIELD_NUMBER: _ClassVar[int]
    REQUESTIBDCHAINBLOCKLOCATOR_FIELD_NUMBER: _ClassVar[int]
    IBDCHAINBLOCKLOCATOR_FIELD_NUMBER: _ClassVar[int]
    REQUESTANTIPAST_FIELD_NUMBER: _ClassVar[int]
    REQUESTNEXTPRUNINGPOINTANDITSANTICONEBLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCKBODY_FIELD_NUMBER: _ClassVar[int]
    REQUESTBLOCKBODIES_FIELD_NUMBER: _ClassVar[int]
    REQUESTPRUNINGPOINTSMTSTATE_FIELD_NUMBER: _ClassVar[int]
    SMTMETADATA_FIELD_NUMBER: _ClassVar[int]
    SMTLANECHUNK_FIELD_NUMBER: _ClassVar[int]
    REQUESTNEXTPRUNINGPOINTSMTCHUNK_FIELD_NUMBER: _ClassVar[int]
    RESPONSEID_FIELD_NUMBER: _ClassVar[int]
    REQUESTID_FIELD_NUMBER: _ClassVar[int]
    addresses: AddressesMessage
    block: BlockMessage
    transaction: TransactionMessage
    blockLocator: BlockLocatorMessage
    requestAddresses: RequestAddressesMessage
    requestRelayBlocks: RequestRelayBlocksMessage
    requestTransactions: RequestTransactionsMessage
    ibdBlock: BlockMessage
    invRelayBlock: InvRelayBlockMessage
    invTransactions: InvTransactionsMessage
    ping: PingMessage
    pong: PongMessage
    verack: VerackMessage
    version: VersionMessage
    transactionNotFound: TransactionNotFoundMessage
    reject: RejectMessage
    pruningPointUtxoSetChunk: PruningPointUtxoSetChunkMessage
    requestIBDBlocks: RequestIBDBlocksMessage
    unexpectedPruningPoint: UnexpectedPruningPointMessage
    ibdBlockLocator: IbdBlockLocatorMessage
    ibdBlockLocatorHighestHash: IbdBlockLocatorHighestHashMessage
    requestNextPruningPointUtxoSetChunk: RequestNextPruningPointUtxoSetChunkMessage
    donePruningPointUtxoSetChunks: DonePruningPointUtxoSetChunksMessage
    ibdBlockLocatorHighestHashNotFound: IbdBlockLocatorHighestHashNotFoundMessage
    blockWithTrustedData: BlockWithTrustedDataMessage
    doneBlocksWithTrustedData: DoneBlocksWithTrustedDataMessage
    requestPruningPointAndItsAnticone: RequestPruningPointAndItsAnticoneMessage
    blockHeaders: BlockHeadersMessage
    requestNextHeaders: RequestNextHeadersMessage
    DoneHeaders: DoneHeadersMessage
    requestPruningPointUTXOSet: RequestPruningPointUTXOSetMessage
    requestHeaders: RequestHeadersMessage
    requestBlockLocator: RequestBlockLocatorMessage
    pruningPoints: PruningPointsMessage
    requestPruningPointProof: RequestPruningPointProofMessage
    pruningPointProof: PruningPointProofMessage
    ready: ReadyMessage
    blockWithTrustedDataV4: BlockWithTrustedDataV4Message
    trustedData: TrustedDataMessage
    requestIBDChainBlockLocator: RequestIBDChainBlockLocatorMessage
    ibdChainBlockLocator: IbdChainBlockLocatorMessage
    requestAntipast: RequestAntipastMessage
    requestNextPruningPointAndItsAnticoneBlocks: RequestNextPruningPointAndItsAnticoneBlocksMessage
    blockBody: BlockBodyMessage
    requestBlockBodies: RequestBlockBodiesMessage
    requestPruningPointSmtState: RequestPruningPointSmtStateMessage
    smtMetadata: SmtMetadataMessage
    smtLaneChunk: SmtLaneChunkMessage
    requestNextPruningPointSmtChunk: RequestNextPruningPointSmtChunkMessage
    responseId: int
    requestId: int
    def __init__(self, addresses: _Optional[_Union[AddressesMessage, _Mapping]] = ..., block: _Optional[_Union[BlockMessage, _Mapping]] = ..., transaction: _Optional[_Union[TransactionMessage, _Mapping]] = ..., blockLocator: _Optional[_Union[BlockLocatorMessage, _Mapping]] = ..., requestAddresses: _Optional[_Union[RequestAddressesMessage, _Mapping]] = ..., requestRelayBlocks: _Optional[_Union[RequestRelayBlocksMessage, _Mapping]] = ..., requestTransactions: _Optional[_Union[RequestTransactionsMessage, _Mapping]] = ..., ibdBlock: _Optional[_Union[BlockMessage, _Mapping]] = ..., invRelayBlock: _Optional[_Union[InvRelayBlockMessage, _Mapping]] = ..., invTransactions: _Optional[_Union[InvTransactionsMessage, _Mapping]] = ..., ping: _Optional[_Union[PingMessage, _Mapping]] = ..., pong: _Optional[_Union[PongMessage, _Mapping]] = ..., verack: _Optional[_Union[VerackMessage, _Mapping]] = ..., version: _Optional[_Union[VersionMessage, _Mapping]] = ..., transactionNotFound: _Optional[_Union[TransactionNotFoundMessage, _Mapping]] = ..., reject: _Optional[_Union[RejectMessage, _Mapping]] = ..., pruningPointUtxoSetChunk: _Optional[_Union[PruningPointUtxoSetChunkMessage, _Mapping]] = ..., requestIBDBlocks: _Optional[_Union[RequestIBDBlocksMessage, _Mapping]] = ..., unexpectedPruningPoint: _Optional[_Union[UnexpectedPruningPointMessage, _Mapping]] = ..., ibdBlockLocator: _Optional[_Union[IbdBlockLocatorMessage, _Mapping]] = ..., ibdBlockLocatorHighestHash: _Optional[_Union[IbdBlockLocatorHighestHashMessage, _Mapping]] = ..., requestNextPruningPointUtxoSetChunk: _Optional[_Union[RequestNextPruningPointUtxoSetChunkMessage, _Mapping]] = ..., donePruningPointUtxoSetChunks: _Optional[_Union[DonePruningPointUtxoSetChunksMessage, _Mapping]] = ..., ibdBlockLocatorHighestHashNotFound: _Optional[_Union[IbdBlockLocatorHighestHashNotFoundMessage, _Mapping]] = ..., blockWithTrustedData: _Optional[_Union[BlockWithTrustedDataMessage, _Mapping]] = ..., doneBlocksWithTrustedData: _Optional[_Union[DoneBlocksWithTrustedDataMessage, _Mapping]] = ..., requestPruningPointAndItsAnticone: _Optional[_Union[RequestPruningPointAndItsAnticoneMessage, _Mapping]] = ..., blockHeaders: _Optional[_Union[BlockHeadersMessage, _Mapping]] = ..., requestNextHeaders: _Optional[_Union[RequestNextHeadersMessage, _Mapping]] = ..., DoneHeaders: _Optional[_Union[DoneHeadersMessage, _Mapping]] = ..., requestPruningPointUTXOSet: _Optional[_Union[RequestPruningPointUTXOSetMessage, _Mapping]] = ..., requestHeaders: _Optional[_Union[RequestHeadersMessage, _Mapping]] = ..., requestBlockLocator: _Optional[_Union[RequestBlockLocatorMessage, _Mapping]] = ..., pruningPoints: _Optional[_Union[PruningPointsMessage, _Mapping]] = ..., requestPruningPointProof: _Optional[_Union[RequestPruningPointProofMessage, _Mapping]] = ..., pruningPointProof: _Optional[_Union[PruningPointProofMessage, _Mapping]] = ..., ready: _Optional[_Union[ReadyMessage, _Mapping]] = ..., blockWithTrustedDataV4: _Optional[_Union[BlockWithTrustedDataV4Message, _Mapping]] = ..., trustedData: _Optional[_Union[TrustedDataMessage, _Mapping]] = ..., requestIBDChainBlockLocator: _Optional[_Union[RequestIBDChainBlockLocatorMessage, _Mapping]] = ..., ibdChainBlockLocator: _Optional[_Union[IbdChainBlockLocatorMessage, _Mapping]] = ..., requestAntipast: _Optional[_Union[RequestAntipastMessage, _Mapping]] = ..., requestNextPruningPointAndItsAnticoneBlocks: _Optional[_Union[RequestNextPruningPointAndItsAnticoneBlocksMessage, _Mapping]] = ..., blockBody: _Optional[_Union[BlockBodyMessage, _Mapping]] = ..., requestBlockBodies: _Optional[_Union[RequestBlockBodiesMessage, _Mapping]] = ..., requestPruningPointSmtState: _Optional[_Union[RequestPruningPointSmtStateMessage, _Mapping]] = ..., smtMetadata: _Optional[_Union[SmtMetadataMessage, _Mapping]] = ..., smtLaneChunk: _Optional[_Union[SmtLaneChunkMessage, _Mapping]] = ..., requestNextPruningPointSmtChunk: _Optional[_Union[RequestNextPruningPointSmtChunkMessage, _Mapping]] = ..., responseId: _Optional[int] = ..., requestId: _Optional[int] = ...) -> None: ...

class VersionMessage(_message.Message):
    __slots__ = ("protocolVersion", "services", "timestamp", "address", "id", "userAgent", "disableRelayTx", "subnetworkId", "network")
    PROTOCOLVERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    USERAGENT_FIELD_NUMBER: _ClassVar[int]
    DISABLERELAYTX_FIELD_NUMBER: _ClassVar[int]
    SUBNETWORKID_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    protocolVersion: int
    services: int
    timestamp: int
    address: NetAddress
    id: bytes
    userAgent: str
    disableRelayTx: bool
    subnetworkId: SubnetworkId
    network: str
    def __init__(self, protocolVersion: _Optional[int] = ..., services: _Optional[int] = ..., timestamp: _Optional[int] = ..., address: _Optional[_Union[NetAddress, _Mapping]] = ..., id: _Optional[bytes] = ..., userAgent: _Optional[str] = ..., disableRelayTx: bool = ..., subnetworkId: _Optional[_Union[SubnetworkId, _Mapping]] = ..., network: _Optional[str] = ...) -> None: ...

class VerackMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadyMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RejectMessage(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class PingMessage(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class PongMessage(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class NetAddress(_message.Message):
    __slots__ = ("timestamp", "ip", "port", "services", "relayPort", "relayCapacity", "relayTtlMs", "relayRole", "libp2pPeerId", "relayCircuitHint")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    RELAYPORT_FIELD_NUMBER: _ClassVar[int]
    RELAYCAPACITY_FIELD_NUMBER: _ClassVar[int]
    RELAYTTLMS_FIELD_NUMBER: _ClassVar[int]
    RELAYROLE_FIELD_NUMBER: _ClassVar[int]
    LIBP2PPEERID_FIELD_NUMBER: _ClassVar[int]
    RELAYCIRCUITHINT_FIELD_NUMBER: _ClassVar[int]
    timestamp: int
    ip: bytes
    port: int
    services: int
    relayPort: int
    relayCapacity: int
    relayTtlMs: int
    relayRole: RelayRole
    libp2pPeerId: str
    relayCircuitHint: str
    def __init__(self, timestamp: _Optional[int] = ..., ip: _Optional[bytes] = ..., port: _Optional[int] = ..., services: _Optional[int] = ..., relayPort: _Optional[int] = ..., relayCapacity: _Optional[int] = ..., relayTtlMs: _Optional[int] = ..., relayRole: _Optional[_Union[RelayRole, str]] = ..., libp2pPeerId: _Optional[str] = ..., relayCircuitHint: _Optional[str] = ...) -> None: ...

class SubnetworkId(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: bytes
    def __init__(self, bytes: _Optional[bytes] = ...) -> None: ...

class RequestAddressesMessage(_message.Message):
    __slots__ = ("includeAllSubnetworks", "subnetworkId")
    INCLUDEALLSUBNETWORKS_FIELD_NUMBER: _ClassVar[int]
    SUBNETWORKID_FIELD_NUMBER: _ClassVar[int]
    includeAllSubnetworks: bool
    subnetworkId: SubnetworkId
    def __init__(self, includeAllSubnetworks: bool = ..., subnetworkId: _Optional[_Union[SubnetworkId, _Mapping]] = ...) -> None: ...

class AddressesMessage(_message.Message):
    __slots__ = ("addressList",)
    ADDRESSLIST_FIELD_NUMBER: _ClassVar[int]
    addressList: _containers.RepeatedCompositeFieldContainer[NetAddress]
    def __init__(self, addressList: _Optional[_Iterable[_Union[NetAddress, _Mapping]]] = ...) -> None: ...

class TransactionId(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: bytes
    def __init__(self, bytes: _Optional[bytes] = ...) -> None: ...

class InvTransactionsMessage(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedCompositeFieldContainer[TransactionId]
    def __init__(self, ids: _Optional[_Iterable[_Union[TransactionId, _Mapping]]] = ...) -> None: ...

class RequestTransactionsMessage(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedCompositeFieldContainer[TransactionId]
    def __init__(self, ids: _Optional[_Iterable[_Union[TransactionId, _Mapping]]] = ...) -> None: ...

class TransactionNotFoundMessage(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: TransactionId
    def __init__(self, id: _Optional[_Union[TransactionId, _Mapping]] = ...) -> None: ...

class TransactionMessage(_message.Message):
    __slots__ = ("version", "inputs", "outputs", "lockTime", "subnetworkId", "gas", "payload", "storageMass")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LOCKTIME_FIELD_NUMBER: _ClassVar[int]
    SUBNETWORKID_FIELD_NUMBER: _ClassVar[int]
    GAS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    STORAGEMASS_FIELD_NUMBER: _ClassVar[int]
    version: int
    inputs: _containers.RepeatedCompositeFieldContainer[TransactionInput]
    outputs: _containers.RepeatedCompositeFieldContainer[TransactionOutput]
    lockTime: int
    subnetworkId: SubnetworkId
    gas: int
    payload: bytes
    storageMass: int
    def __init__(self, version: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[TransactionInput, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TransactionOutput, _Mapping]]] = ..., lockTime: _Optional[int] = ..., subnetworkId: _Optional[_Union[SubnetworkId, _Mapping]] = ..., gas: _Optional[int] = ..., payload: _Optional[bytes] = ..., storageMass: _Optional[int] = ...) -> None: ...

class TransactionInput(_message.Message):
    __slots__ = ("previousOutpoint", "signatureScript", "sequence", "computeCommit")
    PREVIOUSOUTPOINT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURESCRIPT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    COMPUTECOMMIT_FIELD_NUMBER: _ClassVar[int]
    previousOutpoint: Outpoint
    signatureScript: bytes
    sequence: int
    computeCommit: int
    def __init__(self, previousOutpoint: _Optional[_Union[Outpoint, _Mapping]] = ..., signatureScript: _Optional[bytes] = ..., sequence: _Optional[int] = ..., computeCommit: _Optional[int] = ...) -> None: ...

class Outpoint(_message.Message):
    __slots__ = ("transactionId", "index")
    TRANSACTIONID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    transactionId: TransactionId
    index: int
    def __init__(self, transactionId: _Optional[_Union[TransactionId, _Mapping]] = ..., index: _Optional[int] = ...) -> None: ...

class TransactionOutput(_message.Message):
    __slots__ = ("value", "scriptPublicKey", "covenant")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SCRIPTPUBLICKEY_FIELD_NUMBER: _ClassVar[int]
    COVENANT_FIELD_NUMBER: _ClassVar[int]
    value: int
    scriptPublicKey: ScriptPublicKey
    covenant: Covenant
    def __init__(self, value: _Optional[int] = ..., scriptPublicKey: _Optional[_Union[ScriptPublicKey, _Mapping]] = ..., covenant: _Optional[_Union[Covenant, _Mapping]] = ...) -> None: ...

class ScriptPublicKey(_message.Message):
    __slots__ = ("script", "version")
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    script: bytes
    version: int
    def __init__(self, script: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...

class Covenant(_message.Message):
    __slots__ = ("authorizingInput", "covenantId")
    AUTHORIZINGINPUT_FIELD_NUMBER: _ClassVar[int]
    COVENANTID_FIELD_NUMBER: _ClassVar[int]
    authorizingInput: int
    covenantId: Hash
    def __init__(self, authorizingInput: _Optional[int] = ..., covenantId: _Optional[_Union[Hash, _Mapping]] = ...) -> None: ...

class Hash(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: bytes
    def __init__(self, bytes: _Optional[bytes] = ...) -> None: ...

class InvRelayBlockMessage(_message.Message):
    __slots__ = ("hash",)
    HASH_FIELD_NUMBER: _ClassVar[int]
    hash: Hash
    def __init__(self, hash: _Optional[_Union[Hash, _Mapping]] = ...) -> None: ...

class RequestRelayBlocksMessage(_message.Message):
    __slots__ = ("hashes",)
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedCompositeFieldContainer[Hash]
    def __init__(self, hashes: _Optional[_Iterable[_Union[Hash, _Mapping]]] = ...) -> None: ...

class BlockMessage(_message.Message):
    __slots__ = ("header", "transactions")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    header: BlockHeader
    transactions: _containers.RepeatedCompositeFieldContainer[TransactionMessage]
    def __init__(self, header: _Optional[_Union[BlockHeader, _Mapping]] = ..., transactions: _Optional[_Iterable[_Union[TransactionMessage, _Mapping]]] = ...) -> None: ...

class BlockHeader(_message.Message):
    __slots__ = ("version", "hashMerkleRoot", "acceptedIdMerkleRoot", "utxoCommitment", "timestamp", "bits", "nonce", "daaScore", "blueWork", "parents", "blueScore", "pruningPoint")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HASHMERKLEROOT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTEDIDMERKLEROOT_FIELD_NUMBER: _ClassVar[int]
    UTXOCOMMITMENT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    DAASCORE_FIELD_NUMBER: _ClassVar[int]
    BLUEWORK_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    BLUESCORE_FIELD_NUMBER: _ClassVar[int]
    PRUNINGPOINT_FIELD_NUMBER: _ClassVar[int]
    version: int
    hashMerkleRoot: Hash
    acceptedIdMerkleRoot: Hash
    utxoCommitment: Hash
    timestamp: int
    bits: int
    nonce: int
    daaScore: int
    blueWork: bytes
    parents: _containers.RepeatedCompositeFieldContainer[BlockLevelParents]
    blueScore: int
    pruningPoint: Hash
    def __init__(self, version: _Optional[int] = ..., hashMerkleRoot: _Optional[_Union[Hash, _Mapping]] = ..., acceptedIdMerkleRoot: _Optional[_Union[Hash, _Mapping]] = ..., utxoCommitment: _Optional[_Union[Hash, _Mapping]] = ..., timestamp: _Optional[int] = ..., bits: _Optional[int] = ..., nonce: _Optional[int] = ..., daaScore: _Optional[int] = ..., blueWork: _Optional[bytes] = ..., parents: _Optional[_Iterable[_Union[BlockLevelParents, _Mapping]]] = ..., blueScore: _Optional[int] = ..., pruningPoint: _Optional[_Union[Hash, _Mapping]] = ...) -> None: ...

class BlockLevelParents(_message.Message):
    __slots__ = ("parentHashes", "cumulativeLevel")
    PARENTHASHES_FIELD_NUMBER: _ClassVar[int]
    CUMULATIVELEVEL_FIELD_NUMBER: _ClassVar[int]
    parentHashes: _containers.RepeatedCompositeFieldContainer[Hash]
    cumulativeLevel: int
    def __init__(self, parentHashes: _Optional[_Iterable[_Union[Hash, _Mapping]]] = ..., cumulativeLevel: _Optional[int] = ...) -> None: ...

class RequestBlockLocatorMessage(_message.Message):
    __slots__ = ("highHash", "limit")
    HIGHHASH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    highHash: Hash
    limit: int
    def __init__(self, highHash: _Optional[_Union[Hash, _Mapping]] = ..., limit: _Optional[int] = ...) -> None: ...

class BlockLocatorMessage(_message.Message):
    __slots__ = ("hashes",)
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedCompositeFieldContainer[Hash]
    def __init__(self, hashes: _Optional[_Iterable[_Union[Hash, _Mapping]]] = ...) -> None: ...

class PruningPointUtxoSetChunkMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestIBDBlocksMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnexpectedPruningPointMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IbdBlockLocatorMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IbdBlockLocatorHighestHashMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestNextPruningPointUtxoSetChunkMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DonePruningPointUtxoSetChunksMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IbdBlockLocatorHighestHashNotFoundMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlockWithTrustedDataMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DoneBlocksWithTrustedDataMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestPruningPointAndItsAnticoneMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlockHeadersMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestNextHeadersMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DoneHeadersMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestPruningPointUTXOSetMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestHeadersMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PruningPointsMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestPruningPointProofMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PruningPointProofMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlockWithTrustedDataV4Message(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TrustedDataMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestIBDChainBlockLocatorMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IbdChainBlockLocatorMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestAntipastMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestNextPruningPointAndItsAnticoneBlocksMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlockBodyMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestBlockBodiesMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestPruningPointSmtStateMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SmtMetadataMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SmtLaneChunkMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestNextPruningPointSmtChunkMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
